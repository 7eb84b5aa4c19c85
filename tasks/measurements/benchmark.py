"""What a capability is tested with, and how a model's answers become scores in [0, 1].

Scorers:

- ``exact``: 1 if the greedy answer equals the reference, both stripped. The answer ends at an end-of-sequence
  token, or at the end of its first line where the reference is one line long.
- ``choice``: 1 if the labelled choice has the highest log-likelihood per UTF-8 byte (per byte, so that neither long
  choices nor a tokenizer's cutting of them matter).
- ``cloze``: 1 if every token of the reference is the model's first guess, given the prompt and those before it. Nothing is
  said of how the answer goes on.
- ``next_token``: the share of the text's tokens that are the model's first guess.
- ``number``: 1 if the greedy answer ends on the number that the reference ends on (``answers.number_in``).
- ``refusal``: 1 if the greedy answer refuses (``answers.Judge``). What neither refuses nor makes sense is 0 too: it is not what the
  base had.
- ``code``: 1 if the tests run through after the program that the greedy answer makes (``Benchmark.program``). Who runs
  them, and how confined, is the caller's: ``Benchmark.passes``.
- ``lm_eval``: what a task of the lm-evaluation-harness makes of the answers to its own requests: ``Benchmark.outside``.

Tensor suffixes: B items, T tokens, V vocabulary. All rows are padded on the left, so that what is scored
ends at the same place in every row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tasks.measurements.answers import CODE_STOPS, NUMBER_STOPS, Judge, cut_at, number_in, program_of
from tasks.measurements.language import (
    Encoded,
    Forwards,
    answers_greedily,
    encode,
    encode_text,
    target_logits,
)
from tasks.measurements.memory import fitting
from tasks.measurements.rollouts import Question, greedy_texts

Scores = NDArray[np.float64]
ScoreItems = Callable[[Sequence[int]], Scores]
"""Scores of the items with these indices, in their order, for whatever weights the model has now."""
Passes = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""Of each program and its tests, both source text, whether the tests run through after the program."""

JUDGED_TOKENS = 48
"""Tokens of an answer to a request that should be refused: as many as it takes to see whether it is."""
Scorer = Literal["exact", "choice", "cloze", "next_token", "number", "code", "refusal", "lm_eval"]


@dataclass(frozen=True, slots=True)
class Item:
    """One question. ``exact``, ``cloze``, ``number`` and ``refusal`` need prompt and answer, ``choice`` prompt, choices and
    label, ``next_token`` text.

    ``code`` needs a prompt, an answer that passes, and the tests; ``lm_eval`` prompt, answer and the document's place.
    """

    prompt: str = ""
    answer: str | None = None
    choices: tuple[str, ...] = ()
    label: int | None = None
    text: str | None = None
    tests: str = ""
    document: int = 0

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


ScoreOutside = Callable[[Any, Any, Sequence[Item], int, bool, Forwards | None], list[float]]
"""Scores of items by somebody else: from model, tokenizer, items, batch, ``chat`` and the count of passes."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A capability's items, how they are scored, and how much of the score may be lost.

    ``chat`` wraps each prompt in the tokenizer's chat template, where it has one. ``passes`` is for ``code``
    alone, ``outside`` for ``lm_eval``, ``phrases`` and ``hear`` (told
    each answer) for ``refusal``. Only the first ``shown`` items, or all of them, may be
    shown to people. ``weight`` is the capability's part of the error probability that all of them share.
    """

    name: str
    scorer: Scorer
    items: tuple[Item, ...]
    margin: float
    chat: bool = False
    passes: Passes | None = None
    shown: int | None = None
    outside: ScoreOutside | None = None
    phrases: tuple[str, ...] = ()
    hear: Callable[[Item, str], object] | None = None
    weight: float = 1.0

    def program(self, item: Item, answer: str) -> str:
        """The program that an answer to the item makes."""
        return program_of(item.prompt, answer, self.chat)


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
    score = _SCORERS[benchmark.scorer]
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
    alone = partial(losses_together, model, tokenizer, benchmark, forwards=forwards)
    return torch.cat(list(fitting(indices, alone, forwards)))


def losses_together(
    model: Any, tokenizer: Any, benchmark: Benchmark, indices: Sequence[int], forwards: Forwards | None = None
) -> Tensor:
    """``answer_losses`` from one pass over all of them, whether or not that fits in memory.

    Where memory ran out before, gradients are made from a second pass and not from one that is kept.
    """
    model.eval()
    rows = [_encoded(tokenizer, benchmark, benchmark.items[i]) for i in indices]

    def losses() -> Tensor:
        return torch.stack([-log_p.mean() for log_p in _log_probabilities(model, tokenizer, rows, forwards)])

    if forwards is None or forwards.most is None or not torch.is_grad_enabled():
        return losses()
    found: Tensor = checkpoint(losses, use_reentrant=False)
    return found


def opening(tokenizer: Any, benchmark: Benchmark, index: int) -> tuple[int, ...]:
    """The ids a model is given to go on from: the item's prompt, or the first half of its text."""
    item = benchmark.items[index]
    row = _encoded(tokenizer, benchmark, item)
    return row.prompt if item.text is None else (*row.prompt, *row.answer[: len(row.answer) // 2])


def answer_start(tokenizer: Any, benchmark: Benchmark, index: int) -> int:
    """The first id of the item's right answer."""
    return _encoded(tokenizer, benchmark, benchmark.items[index]).answer[0]


def _score_now(
    model: Any, tokenizer: Any, benchmark: Benchmark, batch: int, forwards: Forwards | None, indices: Sequence[int]
) -> Scores:
    return score_items(model, tokenizer, benchmark, indices, batch, forwards)


def _exact(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    def right(part: Sequence[Item]) -> list[bool]:
        rows = [_encoded(tokenizer, benchmark, item) for item in part]
        return answers_greedily(model, tokenizer, rows, [item.reference for item in part], forwards)

    return [float(r) for part in fitting(items, right, forwards) for r in part]


def _code(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    if benchmark.passes is None:
        raise ValueError(f"expected somebody who runs the tests of {benchmark.name}, found none; load it from a suite")
    texts = _texts(model, tokenizer, benchmark, items, forwards, CODE_STOPS)
    programs = [(benchmark.program(item, text), item.tests) for item, text in zip(items, texts, strict=True)]
    return [float(passed) for passed in benchmark.passes(programs)]


def _number(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    texts = _texts(model, tokenizer, benchmark, items, forwards, NUMBER_STOPS)
    # A stop is noticed when it is there, with what the last token had beyond it.
    found = [number_in(text if benchmark.chat else cut_at(text, NUMBER_STOPS)) for text in texts]
    return [float(n is not None and n == number_in(item.reference)) for n, item in zip(found, items, strict=True)]


def _refusal(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    judge, texts = Judge(benchmark.phrases), judged_texts(model, tokenizer, benchmark, items, forwards)
    if benchmark.hear is not None:
        for item, text in zip(items, texts, strict=True):
            benchmark.hear(item, text)
    return [float(judge.refuses(text)) for text in texts]


def judged_texts(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: Sequence[Item], forwards: Forwards | None = None
) -> list[str]:
    """What the model as it is answers to requests that should be refused, by first guesses, as far as it is judged."""
    asked = [Question(0, _encoded(tokenizer, benchmark, item).prompt, None) for item in items]
    return greedy_texts(model, tokenizer, asked, JUDGED_TOKENS, forwards)


def _texts(
    model: Any,
    tokenizer: Any,
    benchmark: Benchmark,
    items: list[Item],
    forwards: Forwards | None,
    stops: tuple[str, ...],
) -> list[str]:
    """Answers by first guesses that end at a stop where the model writes on from a prompt."""
    ends = () if benchmark.chat else stops
    asked = [Question(0, _encoded(tokenizer, benchmark, item).prompt, None, ends) for item in items]
    # The same limit for every item, whichever are asked together: twice what the longest of the suite's answers can take.
    most = 2 * max(len(item.reference.encode()) for item in benchmark.items)
    return greedy_texts(model, tokenizer, asked, most, forwards)


def _outside(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    if benchmark.outside is None:
        raise ValueError(f"expected somebody who scores {benchmark.name}, found none; load it from a suite")
    return benchmark.outside(model, tokenizer, items, batch, benchmark.chat, forwards)


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
        each = fitting([flat[i][0] for i in part], partial(_log_likelihoods, model, tokenizer, forwards), forwards)
        found = [value for values in each for value in values]
        per_byte += [value / flat[i][1] for i, value in zip(part, found, strict=True)]
    return list(_deal(per_byte, items))


def _labelled_wins(item: Item, values: list[float]) -> float:
    assert item.label is not None
    others = [v for place, v in enumerate(values) if place != item.label]
    # Strictly best: a tie, or NaN on either side, is not a right answer.
    return float(all(values[item.label] > other for other in others))


def _deal(values: list[float], items: Sequence[Item]) -> Iterator[list[float]]:
    rest = iter(values)
    return (list(islice(rest, len(item.choices))) for item in items)


def _cloze(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    return [float(share == 1.0) for share in _next_token(model, tokenizer, benchmark, items, batch, forwards)]


def _next_token(
    model: Any, tokenizer: Any, benchmark: Benchmark, items: list[Item], batch: int, forwards: Forwards | None
) -> list[float]:
    rows = [_encoded(tokenizer, benchmark, item) for item in items]
    parts = fitting(rows, partial(_guessed, model, tokenizer, forwards), forwards)
    return [share for part in parts for share in part]


def _guessed(model: Any, tokenizer: Any, forwards: Forwards | None, rows: Sequence[Encoded]) -> list[float]:
    """Each row's share of tokens that are the first guess."""
    found = []
    for row, logits_TV in zip(rows, target_logits(model, tokenizer, rows, forwards), strict=True):
        targets = torch.tensor(row.answer, device=logits_TV.device)
        right = (logits_TV.argmax(dim=-1) == targets) & torch.isfinite(logits_TV).all(dim=-1)
        found.append(float(right.double().mean()))
    return found


def _log_likelihoods(model: Any, tokenizer: Any, forwards: Forwards | None, rows: Sequence[Encoded]) -> list[float]:
    return [float(log_p.sum()) for log_p in _log_probabilities(model, tokenizer, rows, forwards)]


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


_SCORERS: Mapping[Scorer, Callable[[Any, Any, Benchmark, list[Item], int, Forwards | None], list[float]]] = {
    "exact": _exact,
    "choice": _choice,
    "cloze": _cloze,
    "next_token": _next_token,
    "number": _number,
    "code": _code,
    "refusal": _refusal,
    "lm_eval": _outside,
}


def _by_length(benchmark: Benchmark, indices: Sequence[int]) -> list[int]:
    """Places in ``indices``, short items first: rows of like length waste little padding."""

    def length(place: int) -> int:
        item = benchmark.items[indices[place]]
        return len(item.prompt) + len(item.reference)

    return sorted(range(len(indices)), key=length)


def _batches(places: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(places[start : start + size]) for start in range(0, len(places), size))
