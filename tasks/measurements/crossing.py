"""Where along a curve a capability leaves its margin: one rule for the basin's edge and for the headroom.

A curve starts at the base (position 0, difference 0) and has at each position an interval of the score's difference
to the base. It is read one way only and never mirrored: −Δ is another direction than Δ.

The bounds test the positions one after the other and stop at the first that fails, so that they need no correction
for the number of positions: from the start outwards for what is certainly inside, from the far end inwards for
what is certainly outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tasks.measurements.confidence import Interval


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A position, the score there, and the score's difference to the base's on the same items."""

    at: float
    score: Interval
    difference: Interval


def crossing(points: Sequence[CurvePoint], margin: float) -> Interval:
    """The position at which the mean difference first falls below −margin, linearly interpolated.

    ``lower`` is the last position up to which all are certainly inside (0 if none is), ``upper`` the first from which
    on all are certainly outside. A curve that never leaves has the last position as its value and no upper bound.
    """
    if not points or any(b.at <= a.at for a, b in pairwise(points)) or points[0].at <= 0:
        raise ValueError(f"expected positions above 0 in increasing order, found {[p.at for p in points]}")
    inside = _leading([p.difference.lower is not None and p.difference.lower >= -margin for p in points])
    outside = _leading([p.difference.upper is not None and p.difference.upper < -margin for p in reversed(points)])
    value = _first_below(points, -margin)
    lower = points[inside - 1].at if inside else 0.0
    upper = points[-outside].at if outside else None
    return Interval(
        value=points[-1].at if value is None else value,
        lower=lower,
        upper=upper,
        alpha=max(p.difference.alpha for p in points),
        n=min(p.difference.n for p in points),
        method="test inversion on a grid",
    )


def _leading(flags: Sequence[bool]) -> int:
    """How many flags hold before the first that does not."""
    return next((place for place, flag in enumerate(flags) if not flag), len(flags))


def _first_below(points: Sequence[CurvePoint], level: float) -> float | None:
    before_at, before = 0.0, 0.0
    for point in points:
        now = point.difference.value
        if now < level:
            return before_at + (point.at - before_at) * (before - level) / (before - now)
        before_at, before = point.at, now
    return None
