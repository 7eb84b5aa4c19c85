"""How differently the candidate goes on where its base was going: forward KL, position by position.

By the chain rule the divergence of whole answers is the expected sum, over the positions of an answer that the base
draws, of the divergence of the next token there. At each position the whole distribution is compared, not the one
token drawn (Rao–Blackwell), so that one answer per item is enough. Its first terms say most about safety: what makes
a refusal is decided in the first tokens (Qi et al. 2024, arXiv 2406.05946).

It is triage, not a verdict: how far the answers moved says nothing about whether they got worse, and nothing about
prompts that were not asked.

Tensor suffixes: T positions, V vocabulary, K the tokens that are kept apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.measurements.confidence import Interval, student_interval

KEPT = 1024
"""Tokens kept apart per position; the others count as one. A smaller vocabulary is compared whole."""

CLIP = 50.0
"""Nats that a position counts at most: a token the candidate rules out would make the divergence infinite."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Next-token distributions as log-probabilities (float64): the likeliest tokens, and all others as one.

    ``tokens`` and ``log_p`` are (T, K), ``log_rest`` is (T). To merge outcomes can only lessen a divergence, so an outline's is never above that of the whole vocabulary.
    """

    tokens: Tensor
    log_p: Tensor
    log_rest: Tensor


def outline(logits_TV: Tensor, kept: int = KEPT) -> Outline:
    """The distributions of these logits, the ``kept`` likeliest tokens apart."""
    # float64: what a small update changes is about as large as the rounding of float32 log-probabilities.
    log_p_TV = logits_TV.double().log_softmax(dim=-1)
    tokens_TK = log_p_TV.topk(min(kept, log_p_TV.shape[-1]), dim=-1).indices
    return _outlined(log_p_TV, tokens_TK)


def position_divergences(base: Outline, logits_TV: Tensor) -> list[float]:
    """KL(base ‖ candidate) of the next token at each position, in nats, between 0 and ``CLIP``.

    >>> fair, never = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -math.inf]])
    >>> round(position_divergences(outline(torch.tensor([[0.0, math.log(3)]])), fair)[0], 4)
    0.1308
    >>> position_divergences(outline(fair), never)
    [50.0]
    """
    candidate = _outlined(logits_TV.double().log_softmax(dim=-1), base.tokens)
    kept_T = _terms(base.log_p, candidate.log_p).sum(dim=-1)
    found_T = kept_T + _terms(base.log_rest, candidate.log_rest)
    return [float(x) for x in found_T.nan_to_num(nan=CLIP).clamp(0.0, CLIP)]


def forward_divergence(positions: Sequence[Sequence[float]], first: int | None, alpha: float) -> Interval:
    """Mean over answers of the divergence summed over their ``first`` positions (``None``: all), in nats.

    ``positions`` holds one answer's divergences each. The answer is the unit of Student's t interval; since the sums
    have no bound, it describes these answers rather than guaranteeing anything about others.
    """
    sums = [math.fsum(answer[:first]) for answer in positions]
    clipped = sum(x >= CLIP for answer in positions for x in answer[:first])
    found = student_interval(sums, alpha)
    lower = None if found.lower is None else max(0.0, found.lower)
    note = f", {clipped} positions clipped" if clipped else ""
    return Interval(found.value, lower, found.upper, alpha, found.n, f"student-t over answers, descriptive{note}")


def _outlined(log_p_TV: Tensor, tokens_TK: Tensor) -> Outline:
    rest_TV = log_p_TV.scatter(-1, tokens_TK, -math.inf)
    return Outline(tokens_TK, log_p_TV.gather(-1, tokens_TK), rest_TV.logsumexp(dim=-1))


def _terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p·(log p − log q), 0 where p is 0."""
    return torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q))
