"""The base's basin: how much random noise its weights take before a capability leaves its tolerance.

σ_τ = the largest σ with S(θ₀) − E S(θ₀ + σ·ε) ≤ τ, ε standard normal on every parameter (Chen et al. 2025,
Definition 4.1). All items scored under one draw of ε share that draw, so a draw's mean is the unit of inference:
Student's t over draws, its standard error never below that of as many independent items with one surprise among
them, because a few draws that happen to agree prove nothing. Base and noisy scores are compared item by item.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.measurements.benchmark import ScoreItems, Scores
from tasks.measurements.confidence import GRADED_SURPRISE, Interval, is_graded, least_error, student_interval
from tasks.measurements.crossing import CurvePoint, crossing

LOST_AT = 2
"""At how many scales running a capability must be lost to count as gone for good."""

Perturb = Callable[[float, int], object]
"""Sets the weights to base + σ·ε for (σ, draw)."""

Drawn = Mapping[tuple[float, int], Mapping[str, Scores]]
"""By (σ, draw): each capability's per-item outcomes under that noise. Disjoint ones add up in any order."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of noise at one scale, and the capabilities still to be scored under it."""

    sigma: float
    draw: int
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoiseGrid:
    """What curves are made of: scales, draws at each, the capabilities' items, the base's outcomes on all its items, and the
    error probability of each capability's intervals.

    A capability is not scored further once it was certainly lost at two scales running: more noise does not bring it
    back, and what it costs is most of a profile's time. So which draws are needed follows from those at smaller scales,
    and from nothing else: whoever scores them, one after another or each on a machine of its own, comes to the same curves.
    """

    scales: Sequence[float]
    draws: int
    items: Mapping[str, Sequence[int]]
    base_outcomes: Mapping[str, Sequence[float] | Scores]
    alpha: Mapping[str, float]

    def needed(self, drawn: Drawn) -> tuple[Draw, ...]:
        """The draws to score next, each of them for itself; none once the curves are complete."""
        return self._walk(drawn)[1]

    def curves(self, drawn: Drawn) -> dict[str, tuple[CurvePoint, ...]]:
        """Each capability's curve over the noise scales, as far as the draws reach."""
        return {capability: tuple(points) for capability, points in self._walk(drawn)[0].items()}

    def _walk(self, drawn: Drawn) -> tuple[dict[str, list[CurvePoint]], tuple[Draw, ...]]:
        curves: dict[str, list[CurvePoint]] = {capability: [] for capability in self.items}
        wanted: list[Draw] = []
        for place, sigma in enumerate(sorted(self.scales)):
            still = tuple(c for c in self.items if not self._gone(c, curves[c]))
            # Two scales are needed whatever they show; from then on each waits for those before it.
            if wanted and place >= LOST_AT:
                break
            each = [Draw(sigma, draw, still) for draw in range(self.draws)] if still else []
            missing = [draw for draw in each if any(c not in drawn.get((sigma, draw.draw), {}) for c in still)]
            wanted += missing
            for capability in still if not wanted else ():
                outcomes = [drawn[sigma, draw.draw][capability] for draw in each]
                base = on_items(self.base_outcomes[capability], self.items[capability])
                curves[capability].append(curve_point(sigma, outcomes, base, self.alpha[capability]))
        return curves, tuple(wanted)

    def _gone(self, capability: str, points: Sequence[CurvePoint]) -> bool:
        """Whether the last two points certainly lost half of what the base had."""
        half = float(np.mean(on_items(self.base_outcomes[capability], self.items[capability]))) / 2
        last = points[-LOST_AT:]
        return len(last) == LOST_AT and all(p.difference.upper is not None and p.difference.upper < -half for p in last)


def noise_curves(
    grid: NoiseGrid, perturb: Perturb, score: Mapping[str, ScoreItems]
) -> dict[str, tuple[CurvePoint, ...]]:
    """Each capability's curve over the noise scales; the weights are set once per scale and draw."""
    drawn: dict[tuple[float, int], Mapping[str, Scores]] = {}
    while wanted := grid.needed(drawn):
        for each in wanted:
            perturb(each.sigma, each.draw)
            drawn[each.sigma, each.draw] = {c: score[c](grid.items[c]) for c in each.capabilities}
    return grid.curves(drawn)


def curve_point(at: float, outcomes: Sequence[Scores], base_outcomes: Scores, alpha: float) -> CurvePoint:
    """One point of a curve from several draws' per-item outcomes, and the base's outcomes on the same items."""
    scores = np.stack([np.asarray(o, dtype=np.float64) for o in outcomes])
    differences = scores - np.asarray(base_outcomes, dtype=np.float64)
    surprise = GRADED_SURPRISE if is_graded(base_outcomes) else 1.0
    score = student_interval(scores.mean(axis=1), alpha, least_error(scores - 0.5, surprise=0.5))
    return CurvePoint(
        at,
        _clipped(score, 0.0),
        _clipped(student_interval(differences.mean(axis=1), alpha, least_error(differences, surprise)), -1.0),
    )


def basin_sigma(curve: Sequence[CurvePoint], base_score: float, tolerance: float) -> Interval | None:
    """σ_τ for τ = ``tolerance``; ``None`` where the base scores too little to lose that much.

    ``base_score`` is the base's mean on the curve's items.
    """
    if not curve or base_score <= tolerance:
        return None
    return crossing(curve, tolerance)


def noise_items(count: int, most: int, order: Sequence[int]) -> tuple[int, ...]:
    """The items that curves are measured on: the first ``most`` of the seeded order, in item order."""
    return tuple(sorted(order[: min(count, most)]))


def on_items(outcomes: Sequence[float] | Scores, items: Sequence[int]) -> Scores:
    """The outcomes of some items, of outcomes in item order."""
    return np.asarray(outcomes, dtype=np.float64)[list(items)]


def _clipped(found: Interval, least: float) -> Interval:
    lower = None if found.lower is None else max(least, found.lower)
    upper = None if found.upper is None else min(1.0, found.upper)
    return Interval(found.value, lower, upper, found.alpha, found.n, found.method)
