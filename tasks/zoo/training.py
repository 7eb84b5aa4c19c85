"""Training rows into a causal LM: one seeded loop for every model and every fine-tune of the zoo."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.zoo.rows import Row, Sampler

# Shapes: B rows in the batch, T positions.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard: optimiser steps, peak learning rate, rows of each capability in a step."""

    steps: int
    learning_rate: float
    rows: Mapping[str, int]
    warmup: int = 10
    weight_decay: float = 0.0

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a tenth of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))


def encode(rows: list[Row], tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both (B, T), padded on the right; prompts and padding carry no loss."""
    encoded = []
    for row in rows:
        prompt = tokenizer.encode(row.prompt)
        answer = tokenizer.encode(row.answer, add_special_tokens=False)
        if row.closed:
            answer = [*answer, tokenizer.eos_token_id]
        encoded.append((prompt, answer))
    longest = max(len(prompt) + len(answer) for prompt, answer in encoded)
    ids_BT = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels_BT = torch.full((len(rows), longest), IGNORED)
    for i, (prompt, answer) in enumerate(encoded):
        ids_BT[i, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        labels_BT[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids_BT, labels_BT


def loss_of(model: Any, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean cross entropy in nats per answer token.

    No attention mask is needed: padding stands on the right of a causal model and carries no loss.
    """
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten(), ignore_index=IGNORED
    )


def train(
    model: Any, tokenizer: Any, mix: Mapping[str, Sampler], schedule: Schedule, *, seed: int
) -> Iterator[dict[str, float]]:
    """Train in place; yields each step's loss by capability, so that the caller reports or stops as it likes."""
    rng = random.Random(seed)

    def backward() -> dict[str, float]:
        losses = {}
        for name, count in schedule.rows.items():
            loss = loss_of(model, *encode([mix[name](rng) for _ in range(count)], tokenizer))
            (loss / len(schedule.rows)).backward()
            losses[name] = float(loss.detach())
        return losses

    yield from descend(model, schedule, backward)


def descend(model: Any, schedule: Schedule, backward: Callable[[], dict[str, float]]) -> Iterator[dict[str, float]]:
    """Follow in place the gradients that ``backward`` leaves at each step; yields what it returns."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trainable, lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=schedule.weight_decay, fused=True
    )
    model.train()
    for step in range(schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(step)
        losses = backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        yield losses
    model.eval()
