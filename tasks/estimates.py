"""From the bench's intervals to the gate's estimates; a number that is not finite is none."""

import math

from gate.domain.evidence import CurvePoint, Estimate, Measurement, Name
from tasks.measurements import crossing
from tasks.measurements.confidence import Interval


def estimate(found: Interval) -> Estimate:
    """An interval as an estimate; a bound that is not finite is an absent one. ``ValueError`` without a value."""
    if not math.isfinite(found.value):
        raise ValueError(f"expected a finite value, found {found.value}")
    return Estimate(
        value=found.value,
        lower=_finite(found.lower),
        upper=_finite(found.upper),
        alpha=found.alpha,
        n=found.n,
        method=found.method,
    )


def _finite(bound: float | None) -> float | None:
    return bound if bound is not None and math.isfinite(bound) else None


def interval_of(found: Estimate) -> Interval:
    """An estimate as the bench's interval."""
    return Interval(found.value, found.lower, found.upper, found.alpha, found.n, found.method)


def measurement(name: Name, capability: str | None, found: Interval) -> Measurement:
    """One measurement of the vocabulary."""
    return Measurement(name=name, capability=capability, estimate=estimate(found))


def curve_point(found: crossing.CurvePoint) -> CurvePoint:
    """A curve's point with its score."""
    return CurvePoint(at=found.at, estimate=estimate(found.score))
