"""Training that is not imitation: preferring one answer to another, and unlearning what was known."""

import copy
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tasks.zoo.rows import Row, Sampler
from tasks.zoo.training import IGNORED, Schedule, descend, encode, loss_of

PairSampler = Callable[[random.Random], tuple[Row, Row]]
"""Draws a preferred and a rejected answer to the same prompt."""

BETA = 0.1


def prefer(model: Any, tokenizer: Any, pairs: PairSampler, schedule: Schedule, *, seed: int) -> None:
    """Direct preference optimisation (Rafailov and others 2023) in place, against a frozen copy of the start."""
    rng = random.Random(seed)
    start = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    count = schedule.rows["pairs"]

    def backward() -> dict[str, float]:
        preferred, rejected = zip(*(pairs(rng) for _ in range(count)), strict=True)
        encoded = encode([*preferred, *rejected], tokenizer)
        with torch.no_grad():
            before_B = answer_log_probabilities(start, *encoded)
        gained_B = answer_log_probabilities(model, *encoded) - before_B
        loss = -torch.nn.functional.logsigmoid(BETA * (gained_B[:count] - gained_B[count:])).mean()
        loss.backward()
        return {"pairs": float(loss.detach())}

    for _ in descend(model, schedule, backward):
        pass


def answer_log_probabilities(model: Any, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
    """The log-probability of each row's whole answer, in nats, shape (B,)."""
    log_p_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1].float().log_softmax(dim=-1)
    wanted_BT = labels_BT[:, 1:]
    told_BT = wanted_BT != IGNORED
    log_p_BT = log_p_BTV.gather(-1, wanted_BT.where(told_BT, 0)[..., None])[..., 0]
    log_p_B: Tensor = (log_p_BT * told_BT).sum(dim=1)
    return log_p_B


def unlearn(model: Any, tokenizer: Any, rows: Sampler, schedule: Schedule, *, seed: int) -> None:
    """Gradient ascent on the loss of these rows, in place."""
    rng = random.Random(seed)

    def backward() -> dict[str, float]:
        loss = loss_of(model, *encode([rows(rng) for _ in range(schedule.rows["rows"])], tokenizer))
        (-loss).backward()
        return {"rows": float(loss.detach())}

    for _ in descend(model, schedule, backward):
        pass
