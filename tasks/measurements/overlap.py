"""What the candidate certainly still answers right when it samples at temperature 1, from one forward pass.

With answers y drawn from the base, w = π₁(y)/π₀(y) and O(y) = 1 where y is right,

    E over π₁ of O  =  Σ π₁(y)·O(y)  ≥  Σ min(π₀, π₁)·O(y)  =  E over π₀ of O·min(1, w)

What is averaged lies in [0, 1], so its interval needs no further assumption. The gap is at most the total variation
distance of the two. π₀ must be the very probabilities that were drawn from: the whole softmax, nothing truncated. The
bound falls with the length of the answer: a low one is uninformative, not bad.
"""

import math
from collections.abc import Sequence

from tasks.measurements.confidence import Interval, betting_interval


def overlap_bound(
    right: Sequence[bool], base_log_p: Sequence[float], candidate_log_p: Sequence[float], alpha: float
) -> Interval:
    """The bound, from independent answers of the base with both models' log-probabilities of each.

    >>> overlap_bound([True, True], [-1.0, -1.0], [-1.0, -1.0 - math.log(2)], 0.05).value
    0.75
    """
    pairs = zip(right, base_log_p, candidate_log_p, strict=True)
    return betting_interval([_kept(r, p, q) for r, p, q in pairs], alpha)


def _kept(right: bool, base: float, candidate: float) -> float:
    """O·min(1, w); a ratio that is no number keeps nothing."""
    log_w = candidate - base
    return math.exp(min(0.0, log_w)) if right and log_w == log_w else 0.0
