"""The base's basin: how much random noise its weights take before a capability leaves its tolerance.

σ_τ = the largest σ with S(θ₀) − E S(θ₀ + σ·ε) ≤ τ, ε standard normal on every parameter (Chen et al. 2025,
Definition 4.1). All items scored under one draw of ε share that draw, so a draw's mean is the unit of inference:
Student's t over draws, its standard error never below that of as many independent items with one surprise among
them, because a few draws that happen to agree prove nothing. Base and noisy scores are compared item by item.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tasks.measurements.benchmark import ScoreItems, Scores
from tasks.measurements.confidence import GRADED_SURPRISE, Interval, is_graded, least_error, student_interval
from tasks.measurements.crossing import CurvePoint, crossing

Perturb = Callable[[float, int], object]
"""Sets the weights to base + σ·ε for (σ, draw)."""


def noise_curves(
    perturb: Perturb,
    score: Mapping[str, ScoreItems],
    items: Mapping[str, Sequence[int]],
    base_outcomes: Mapping[str, Sequence[float] | Scores],
    *,
    scales: Sequence[float],
    draws: int,
    alpha: float,
) -> dict[str, tuple[CurvePoint, ...]]:
    """Each capability's curve over the noise scales; the weights are set once per scale and draw.

    A capability is not scored further once it was certainly lost at two scales running: more noise does
    not bring it back, and what it costs is most of a profile's time.
    """
    curves: dict[str, list[CurvePoint]] = {capability: [] for capability in score}
    for sigma in sorted(scales):
        open_capabilities = [c for c in score if not _gone(curves[c], base_outcomes[c], items[c])]
        if not open_capabilities:
            break
        outcomes: dict[str, list[Scores]] = {c: [] for c in open_capabilities}
        for draw in range(draws):
            perturb(sigma, draw)
            for capability in open_capabilities:
                outcomes[capability].append(score[capability](items[capability]))
        for capability in open_capabilities:
            base = on_items(base_outcomes[capability], items[capability])
            curves[capability].append(curve_point(sigma, outcomes[capability], base, alpha))
    return {capability: tuple(points) for capability, points in curves.items()}


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


def _gone(points: Sequence[CurvePoint], base_outcomes: Sequence[float] | Scores, items: Sequence[int]) -> bool:
    """Whether the last two points certainly lost half of what the base had."""
    half = float(np.mean(on_items(base_outcomes, items))) / 2
    return len(points) >= 2 and all(p.difference.upper is not None and p.difference.upper < -half for p in points[-2:])


def _clipped(found: Interval, least: float) -> Interval:
    lower = None if found.lower is None else max(least, found.lower)
    upper = None if found.upper is None else min(1.0, found.upper)
    return Interval(found.value, lower, upper, found.alpha, found.n, found.method)
