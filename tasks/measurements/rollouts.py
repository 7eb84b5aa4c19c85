"""A base's own answers, greedy and sampled, written once and then only read again by each candidate.

Sampling is at temperature 1 from the whole softmax: the probabilities noted are the ones drawn from. The draws are
keyed by (seed, item, position), so they are the same on every machine whose logits are.

Tensor suffixes: B rows, V vocabulary.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.measurements.language import Forwards, answer_limit, decode, end_ids, read_answer, window
from tasks.measurements.memory import fitting


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the ids to go on from, and the reference that makes an answer right, if there is one.

    An answer also ends where it has one of the ``stops`` in it.
    """

    item: int
    prompt: tuple[int, ...]
    reference: str | None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """An answer with its end, the log-probability it was written with, and whether it is the reference.

    An answer that was cut off at the limit is not right, whatever it might have become.
    """

    tokens: tuple[int, ...]
    log_probability: float
    right: bool


Pick = Callable[[int, int, Tensor], int]
"""The next id, from (item, position, log-probabilities in float64 on the CPU)."""


def greedy_rollouts(
    model: Any, tokenizer: Any, questions: Sequence[Question], most: int, forwards: Forwards | None = None
) -> list[Rollout]:
    """The answers of at most ``most`` tokens by first guesses."""
    return _rollouts(model, tokenizer, questions, most, _first, forwards)


def sampled_rollouts(
    model: Any, tokenizer: Any, questions: Sequence[Question], most: int, seed: int, forwards: Forwards | None = None
) -> list[Rollout]:
    """One answer each of at most ``most`` tokens, drawn at temperature 1."""
    return _rollouts(model, tokenizer, questions, most, lambda i, t, log_p_V: draw(log_p_V, seed, i, t), forwards)


def greedy_texts(
    model: Any, tokenizer: Any, questions: Sequence[Question], most: int, forwards: Forwards | None = None
) -> list[str]:
    """The answers by first guesses as people read them: of at most ``most`` tokens, however short the reference is.

    One line where the reference is one line, since no more of it is judged.
    """
    limits = [min(most, window(model) - len(q.prompt)) for q in questions]
    return [answer.text for answer in _answered(model, tokenizer, questions, limits, _first, forwards)]


def _first(_item: int, _position: int, log_p_V: Tensor) -> int:
    return int(log_p_V.argmax())


def draw(log_p_V: Tensor, seed: int, item: int, position: int) -> int:
    """A token drawn by these log-probabilities with the uniform number of (seed, item, position).

    >>> draw(torch.tensor([-torch.inf, 0.0, -torch.inf]), seed=1, item=2, position=3)
    1
    """
    key = hashlib.sha256(f"{seed}\0rollout\0{item}\0{position}".encode()).digest()[:16]
    uniform = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random()
    heaped_V = log_p_V.double().exp().cumsum(dim=-1)
    # Of what is there, not of 1: rounding must not draw a token beyond the last.
    return int(torch.searchsorted(heaped_V, uniform * float(heaped_V[-1]), right=True))


def _rollouts(
    model: Any, tokenizer: Any, questions: Sequence[Question], most: int, pick: Pick, forwards: Forwards | None
) -> list[Rollout]:
    limits = [_limit(model, question, most) for question in questions]
    return [answer.rollout() for answer in _answered(model, tokenizer, questions, limits, pick, forwards)]


def _answered(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    limits: Sequence[int],
    pick: Pick,
    forwards: Forwards | None,
) -> list["_Open"]:
    model.eval()
    ends = end_ids(model, tokenizer)
    asked = list(zip(questions, limits, strict=True))

    def answered(part: Sequence[tuple[Question, int]]) -> list[_Open]:
        open_ones = [_Open(tokenizer, question, ends, limit) for question, limit in part]
        _write(model, tokenizer, open_ones, pick, forwards)
        return open_ones

    return [answer for part in fitting(asked, answered, forwards) for answer in part]


def _write(model: Any, tokenizer: Any, open_ones: Sequence["_Open"], pick: Pick, forwards: Forwards | None) -> None:
    """Writes open answers to their ends."""

    def take(logits_BV: Tensor) -> list[int] | None:
        log_p_BV = logits_BV.double().log_softmax(dim=-1).cpu()
        ids = [answer.go_on(pick, log_p_V) for answer, log_p_V in zip(open_ones, log_p_BV, strict=True)]
        return None if all(answer.ended for answer in open_ones) else ids

    with torch.inference_mode():
        decode(model, tokenizer, [answer.question.prompt for answer in open_ones], take, forwards)


def _limit(model: Any, question: Question, most: int) -> int:
    if question.reference is None:
        return min(most, window(model) - len(question.prompt))
    return min(most, answer_limit(model, question.prompt, question.reference))


@dataclass(slots=True)
class _Open:
    """An answer in the making."""

    tokenizer: Any
    question: Question
    ends: frozenset[int]
    limit: int
    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    ended: bool = False
    right: bool = False
    text: str = ""

    def go_on(self, pick: Pick, log_p_V: Tensor) -> int:
        """Takes one more token; what an ended answer is fed with, beside its neighbours, does not matter."""
        if self.ended:
            return self.tokens[-1]
        token = pick(self.question.item, len(self.tokens), log_p_V)
        self.tokens.append(token)
        self.log_probability += float(log_p_V[token])
        self._read()
        return token

    def _read(self) -> None:
        reference = self.question.reference
        one_line = reference is not None and "\n" not in reference.strip()
        ended, self.text = read_answer(self.tokenizer, self.tokens, self.ends, one_line)
        self.right = ended and reference is not None and self.text.strip() == reference.strip()
        stopped = any(stop in self.text for stop in self.question.stops)
        self.ended = ended or stopped or len(self.tokens) >= self.limit

    def rollout(self) -> Rollout:
        return Rollout(tuple(self.tokens), self.log_probability, self.right)
