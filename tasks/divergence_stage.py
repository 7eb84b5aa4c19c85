"""The forward-only stage: base and candidate read the base's own answers once, and the reference answers once.

What it says is known before the candidate has to answer anything: how far its answers diverge, and a score that it has
at least. Both models are run here and now, on the same device and in the same batches, so that equal weights give
exactly nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gate.domain.evidence import CapabilityProfile, Name, Rollout
from tasks.bench import Bench
from tasks.estimates import measurement
from tasks.measurements.agreement import agrees, greedy_agreement
from tasks.measurements.benchmark import Benchmark, Scores, answer_losses, opening
from tasks.measurements.direction import loss_increase
from tasks.measurements.divergence import Outline, forward_divergence, outline, position_divergences
from tasks.measurements.language import Encoded, target_logits
from tasks.measurements.memory import fitting
from tasks.measurements.overlap import overlap_bound
from tasks.measurements.perturbation import write_weights
from tasks.measurements.retention import item_order
from tasks.measuring import Losses, Measuring

FIRST = {Name.FORWARD_KL_FIRST_TOKEN: 1, Name.FORWARD_KL_FIRST_FIVE: 5, Name.FORWARD_KL: None}
BOUNDS = (Name.GREEDY_AGREEMENT, Name.OVERLAP_BOUND)
STAGE = (*FIRST, *BOUNDS, Name.LOSS_INCREASE)
NOT_WRITTEN = "not measurable: only where answers are written out (scorer: exact)"
Answer = tuple[int, tuple[int, ...]]
"""An item and the tokens of an answer to it."""
NO_NUMBER = "not measurable: the candidate's loss is no finite number"


@dataclass(frozen=True, slots=True)
class _Base:
    """What the base thinks of its own sampled answers and of the reference answers."""

    outlines: Sequence[Outline]
    items: tuple[int, ...]
    losses: Scores


def diverge(m: Measuring) -> None:
    """Forward KL, the lower bounds by agreement and overlap, and the loss along the update."""
    m.tell("reading the base's answers", 0.0)
    m.bench.restore()
    before = {name: _base_side(m, base) for name, base in m.capabilities.items()}
    write_weights(m.bench.model, m.weights)
    for name, base in m.capabilities.items():
        _bounds(m, base, _divergences(m, base, before[name].outlines))
        _loss(m, name, before[name])


def losses_of(bench: Bench, capability: str, items: Sequence[int]) -> Scores:
    """The model's loss per token on these items' reference answers."""
    benchmark = bench.suite.benchmark(capability)
    with torch.inference_mode():
        found = answer_losses(bench.model, bench.tokenizer, benchmark, items, bench.forwards)
    return np.asarray(found.double().cpu().numpy(), dtype=np.float64)


def _base_side(m: Measuring, base: CapabilityProfile) -> _Base:
    count = len(base.outcomes)
    # The profile's seed, not the candidate's: random and worst directions are compared on the same items.
    items = tuple(sorted(item_order(count, m.profile.seed, f"{base.capability}/loss")[: m.plan.loss_items]))
    answers = [(r.item, r.sampled) for r in base.rollouts]
    outlines = [outline(logits_TV) for logits_TV in _read(m, base.capability, answers)]
    return _Base(outlines, items, losses_of(m.bench, base.capability, items))


def _read(m: Measuring, capability: str, answers: Sequence[Answer]) -> Iterator[Tensor]:
    """For each (item, tokens) the logits (T, V) with which the model meets the tokens."""
    benchmark = m.bench.suite.benchmark(capability)
    rows = [Encoded(opening(m.bench.tokenizer, benchmark, item), tokens) for item, tokens in answers]
    for start in range(0, len(rows), m.plan.batch_items):
        part = rows[start : start + m.plan.batch_items]
        for logits in fitting(part, partial(_logits, m.bench), m.bench.forwards):
            yield from logits


def _logits(bench: Bench, rows: Sequence[Encoded]) -> list[Tensor]:
    with torch.inference_mode():
        return list(target_logits(bench.model, bench.tokenizer, rows, bench.forwards))


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the candidate met one answer of the base: its log-probability, and whether each token was the first guess."""

    log_p: float
    agrees: bool


def _divergences(m: Measuring, base: CapabilityProfile, outlines: Sequence[Outline]) -> Mapping[Answer, _Reading]:
    """Adds the divergences; returns how the candidate met the drawn answers."""
    positions, met = [], {}
    drawn = [(r.item, r.sampled) for r in base.rollouts]
    for answer, of_base, logits_TV in zip(drawn, outlines, _read(m, base.capability, drawn), strict=True):
        positions.append(position_divergences(of_base, logits_TV))
        met[answer] = _reading(logits_TV, answer[1])
    for name, first in FIRST.items():
        m.add(measurement(name, base.capability, forward_divergence(positions, first, m.alphas[base.capability])))
    return met


def _reading(logits_TV: Tensor, tokens: Sequence[int]) -> _Reading:
    wanted_T1 = torch.tensor(tokens, device=logits_TV.device)[:, None]
    log_p = float(logits_TV.double().log_softmax(dim=-1).gather(-1, wanted_T1).sum())
    return _Reading(log_p, agrees(logits_TV, tokens))


def _bounds(m: Measuring, base: CapabilityProfile, met: Mapping[Answer, _Reading]) -> None:
    if not is_written(m.bench.suite.benchmark(base.capability)):
        for name in BOUNDS:
            m.leave_out(name, base.capability, NOT_WRITTEN)
        return
    # Where the base is wrong nothing can be kept, and often the answer drawn was the greedy one: no need to read those.
    worth = [(r.item, r.greedy) for r in base.rollouts if r.greedy_right and (r.item, r.greedy) not in met]
    read = zip(worth, _read(m, base.capability, worth), strict=True)
    met = {**met, **{answer: _reading(logits_TV, answer[1]) for answer, logits_TV in read}}
    agreement = greedy_agreement(*_agreed(base.rollouts, met), m.alphas[base.capability])
    overlap = overlap_bound(
        [r.sampled_right for r in base.rollouts],
        [r.log_probability for r in base.rollouts],
        [met[r.item, r.sampled].log_p for r in base.rollouts],
        m.alphas[base.capability],
    )
    m.add(measurement(Name.GREEDY_AGREEMENT, base.capability, agreement))
    m.add(measurement(Name.OVERLAP_BOUND, base.capability, overlap))


def _agreed(rollouts: Sequence[Rollout], met: Mapping[Answer, _Reading]) -> tuple[list[bool], list[bool]]:
    right = [r.greedy_right for r in rollouts]
    return right, [r.greedy_right and met[r.item, r.greedy].agrees for r in rollouts]


def _loss(m: Measuring, capability: str, before: _Base) -> None:
    after = losses_of(m.bench, capability, before.items)
    if not np.isfinite(after).all():
        for name in (Name.LOSS_INCREASE, Name.LOSS_INCREASE_Z, Name.LOSS_INCREASE_OF_WORST):
            m.leave_out(name, capability, NO_NUMBER)
        return
    found = loss_increase(after, before.losses, m.alphas[capability])
    m.losses[capability] = Losses(before.items, before.losses, found.value)
    m.add(measurement(Name.LOSS_INCREASE, capability, found))


def is_written(benchmark: Benchmark) -> bool:
    """Whether the capability's answers are written out by the model and compared with a reference."""
    return benchmark.scorer == "exact"


def increases(m: Measuring) -> Mapping[str, float]:
    """By how much the model's present weights raise each capability's loss over the base's."""
    return {
        name: float(losses_of(m.bench, name, known.items).mean() - known.base.mean())
        for name, known in m.losses.items()
    }
