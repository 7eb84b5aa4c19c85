"""What a capability is tested with, and how a model's answers become scores in [0, 1].

Scorers:

- ``exact``: 1 if the greedy answer equals the reference, both stripped. The answer ends at an end-of-sequence
  token, or at the end of its first line where the reference is one line long.
- ``choice``: 1 if the labelled choice has the highest log-likelihood per UTF-8 byte (per byte, so that neither long
  choices nor a tokenizer's cutting of them matter).
- ``next_token``: the share of the text's tokens that are the model's first guess.

Tensor suffixes: B items, T tokens, V vocabulary. All rows are padded on the left, so that what is scored
ends at the same place in every row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.measurements.language import (
    Encoded,
    Forwards,
    answers_greedily,
    encode,
    encode_text,
    target_logits,
)

Scores = NDArray[np.float64]
ScoreItems = Callable[[Sequence[int]], Scores]
"""Scores of the items with these indices, in their order, for whatever weights the model has now."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question. ``exact`` needs prompt and answer, ``choice`` prompt, choices and label, ``next_token`` text."""

    prompt: str = ""
    answer: str | None = None
    choices: tuple[str, ...] = ()
    label: int | None = None
    text: str | None = None

    @property
    def reference(self) -> str:
        """The right answer as text."""
        if self.answer is not None:
            return self.answer
        if self.label is not None:
            return self.choices[self.label]
        if self.text is not None:
            return self.text
        raise ValueError("expected an item with an answer, a label or a text, found none")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A capability's items, how they are scored, and how much of the score may be lost.

    ``chat`` wraps each prompt in the tokenizer's chat template, where it has one.
    """

    name: str
    scorer: Literal["exact", "choice", "next_token"]
    items: tuple[Item, ...]
    margin: float
    chat: bool = False


def score_items(
    model: Any,
    tokenizer: Any,
    benchmark: Benchmark,
    indices: Sequence[int],
    batch: int = 32,
    forwards: Forwards | None = None,
) -> Scores:
    """The scores in [0, 1] of the items ``indices``, in that order; a non-finite model scores 0.

    ``batch`` bounds the rows of one forward pass; it changes scores by no more than the dtype's rounding does.
    """
    model.eval()
    score = {"exact": _exact, "choice": _choice, "next_token": _next_token}[benchmark.scorer]
    scores = np.zeros(len(indices), dtype=np.float64)
    with torch.inference_mode():
        for places in _batches(_by_length(benchmark, indices), batch):
            items = [benchmark.items[indices[place]] for place in places]
            scores[places] = score(model, tokenizer, benchmark, items, batch, forwards)
    return scores


def scorer(
    model: Any, tokenizer: Any, benchmark: Benchmark, batch: int = 32, forwards: Forwards | None = None
) -> ScoreItems:
    """``score_items`` with everything but the indices given."""
    return partial(_score_now, model, tokenizer, benchmark, batch, forwards)


def answer_loss(
    model: Any, tokenizer: Any, benchmark: Benchmark, indices: Sequence[int], forwards: Forwards | None = None
) -> Tensor:
    """Mean over the items of the cross-entropy per token of the reference answer, in nats; differentiable.

    For ``next_token`` the answer is the whole text. Each item weighs the same, however long its answer.
    """
    return answer_losses(model, tokenizer, benchmark, indices, forwards).mean()


def answer_losses(
    model: Any, tokenizer: Any, benchmark: Benchmark, indices: Sequence[int], forwards: Forwards | None = None
) -> Tensor:
    """Each item's loss of ``answer_loss``, in the order of ``indices``."""
    model.eval()
    rows = [_encoded(tokenizer, benchmark, benchmark.items[i]) for i in indices]
    return torch.stack([-log_p.mean() for log_p in _log_probabilities(model, tokenizer, rows, forwards)])


def opening(tokenizer: Any, benchmark: Benchmark, index: int) -> tuple[int, ...]:
    """The ids a model is given to go on from: the item's prompt, or the first half of its text."""
    item = benchmark.items[index]
    row = _encoded(tokenizer, benchmark, item)
    return row.prompt if item.text is None else (*row.prompt, *row.answer[: len(row.answer) // 2])


def _score_now(
    model: Any, tokenizer: Any, benchmark: Benchmark, batch: int, forwards: Forwards | None, indices: Sequence[int]
) -> Scores:
    return score_items(model, tokenizer, benchmark, indices, batch, forwards)


def _exact(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    rows = [_encoded(tokenizer, benchmark, item) for item in items]
    right = answers_greedily(model, tokenizer, rows, [item.reference for item in items], forwards)
    return [float(r) for r in right]


def choice_values(
    model: Any,
    tokenizer: Any,
    benchmark: Benchmark,
    items: Sequence[Item],
    batch: int,
    forwards: Forwards | None = None,
) -> list[list[float]]:
    """For each item the log-likelihood per byte of each of its choices, in nats."""
    model.eval()
    with torch.inference_mode():
        return _choice_values(model, tokenizer, benchmark, items, batch, forwards)


def _choice(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    each = _choice_values(model, tokenizer, benchmark, items, batch, forwards)
    return [_labelled_wins(item, values) for item, values in zip(items, each, strict=True)]


def _choice_values(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: Sequence[Item], batch: int, forwards: Forwards | None
) -> list[list[float]]:
    flat = [
        (encode(tokenizer, item.prompt, choice, benchmark.chat), len(choice.encode()))
        for item in items
        for choice in item.choices
    ]
    per_byte: list[float] = []
    for part in _batches(range(len(flat)), batch):
        log_ps = _log_probabilities(model, tokenizer, [flat[i][0] for i in part], forwards)
        per_byte += [float(log_p.sum()) / flat[i][1] for i, log_p in zip(part, log_ps, strict=True)]
    return list(_deal(per_byte, items))


def _labelled_wins(item: Item, values: list[float]) -> float:
    assert item.label is not None
    others = [v for place, v in enumerate(values) if place != item.label]
    # Strictly best: a tie, or NaN on either side, is not a right answer.
    return float(all(values[item.label] > other for other in others))


def _deal(values: list[float], items: Sequence[Item]) -> Iterator[list[float]]:
    rest = iter(values)
    return (list(islice(rest, len(item.choices))) for item in items)


def _next_token(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    rows = [_encoded(tokenizer, benchmark, item) for item in items]
    found = []
    for row, logits_TV in zip(rows, target_logits(model, tokenizer, rows, forwards), strict=True):
        targets = torch.tensor(row.answer, device=logits_TV.device)
        right = (logits_TV.argmax(dim=-1) == targets) & torch.isfinite(logits_TV).all(dim=-1)
        found.append(float(right.double().mean()))
    return found


def _log_probabilities(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], forwards: Forwards | None
) -> Iterator[Tensor]:
    """Each row's log-probabilities of its answer's tokens, float32."""
    for row, logits_TV in zip(rows, target_logits(model, tokenizer, rows, forwards), strict=True):
        targets = torch.tensor(row.answer, device=logits_TV.device)
        yield -torch.nn.functional.cross_entropy(logits_TV.float(), targets, reduction="none")


def _encoded(tokenizer: Any, benchmark: Benchmark, item: Item) -> Encoded:
    if item.text is not None:
        return encode_text(tokenizer, item.text)
    return encode(tokenizer, item.prompt, item.reference, benchmark.chat)


def _by_length(benchmark: Benchmark, indices: Sequence[int]) -> list[int]:
    """Places in ``indices``, short items first: rows of like length waste little padding."""

    def length(place: int) -> int:
        item = benchmark.items[indices[place]]
        return len(item.prompt) + len(item.reference)

    return sorted(range(len(indices)), key=length)


def _batches(places: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(places[start : start + size]) for start in range(0, len(places), size))
