"""How much further along its own direction the fine-tune could go before a capability leaves its margin.

h = sup{t : S(θ₀ + t′Δ) ≥ S(θ₀) − margin for all t′ up to t} − 1, in multiples of the update: 0.5 means half as much
again; below 0 the margin is left before the update is complete. The line is extrapolated from the base through the
candidate and beyond, never mirrored.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tasks.measurements.basin import on_items
from tasks.measurements.benchmark import ScoreItems, Scores
from tasks.measurements.confidence import Interval, is_graded, mean_interval, paired_interval
from tasks.measurements.crossing import CurvePoint, crossing


def line_curves(
    place: Callable[[float], object],
    score: Mapping[str, ScoreItems],
    items: Mapping[str, Sequence[int]],
    base_outcomes: Mapping[str, Sequence[float] | Scores],
    *,
    points: Sequence[float],
    alpha: Mapping[str, float],
    known: Mapping[str, Scores] | None = None,
) -> dict[str, tuple[CurvePoint, ...]]:
    """Each capability's scores along θ₀ + tΔ; ``place(t)`` sets the weights once for all capabilities.

    ``alpha`` is each capability's. ``known`` holds the candidate's outcomes (t = 1) on the same items, where they were measured already.
    """
    curves: dict[str, list[CurvePoint]] = {capability: [] for capability in score}
    for t in sorted({1.0, *points}):
        given = known if t == 1.0 else None
        if given is None:
            place(t)
        for capability, of in score.items():
            outcomes = of(items[capability]) if given is None else given[capability]
            base = on_items(base_outcomes[capability], items[capability])
            curves[capability].append(paired_point(t, outcomes, base, alpha[capability]))
    return {capability: tuple(found) for capability, found in curves.items()}


def paired_point(at: float, outcomes: Scores, base_outcomes: Scores, alpha: float) -> CurvePoint:
    """One point of a line: the item is the unit, paired with the base's outcome on it."""
    difference = paired_interval(np.asarray(outcomes) - np.asarray(base_outcomes), alpha, is_graded(base_outcomes))
    return CurvePoint(at, mean_interval(outcomes, alpha), difference)


def headroom(curve: Sequence[CurvePoint], margin: float) -> Interval:
    """h with its bounds from the grid; no upper bound where even the last point is not certainly lost."""
    found = crossing(curve, margin)
    upper = None if found.upper is None else found.upper - 1
    lower = None if found.lower is None else found.lower - 1
    return Interval(found.value - 1, lower, upper, found.alpha, found.n, found.method)
