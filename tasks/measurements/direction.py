"""Is the fine-tune's direction a special one? The loss it costs, against random and worst directions of its own norm.

The central claim of the basin paper, per capability: benign fine-tunes cost what a random step of their length costs,
harmful ones go where the loss rises fastest. The increase L(θ₀ + Δ) − L(θ₀) is therefore placed between two marks:

- in standard deviations of the increase along random directions of the same norm,
- as a fraction of the largest increase that a search found within that norm.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from tasks.measurements.confidence import Interval, Reals, student_interval


def standing(increase: float, random: Sequence[float], alpha: float) -> Interval | None:
    """(increase − μ)/s with mean and standard deviation of the increases along random directions, one per draw.

    A few draws know their mean and spread badly, so the interval gives each of the two half of ``alpha`` (Student's t,
    and chi-square for the spread; the increases over draws are taken as normal). ``None`` where the draws do not
    differ, as for an update of nothing.

    >>> found = standing(41.0, [0.0, 1.0, 2.0], 0.05)
    >>> found.value, 0 < found.lower < 40 < found.upper
    (40.0, True)
    """
    draws = np.asarray(random, dtype=np.float64)
    if draws.size < 2 or not np.isfinite([increase, *draws]).all() or (spread := float(draws.std(ddof=1))) == 0:
        return None
    mean = student_interval(draws, alpha / 2)
    assert mean.lower is not None
    assert mean.upper is not None
    free = draws.size - 1
    large, small = (spread * math.sqrt(free / float(stats.chi2.ppf(q, free))) for q in (alpha / 4, 1 - alpha / 4))
    far, near = increase - mean.lower, increase - mean.upper
    return Interval(
        (increase - mean.value) / spread,
        near / (large if near > 0 else small),
        far / (small if far > 0 else large),
        alpha,
        int(draws.size),
        "student-t and chi-square over draws",
    )


def share_of_worst(increase: float, found: float) -> Interval | None:
    """The increase over the largest increase known within the same norm: 1 is the worst direction known.

    ``found`` is a search's, hence a lower bound of the worst (the update is within its own norm too): the truth lies
    between 0 and the value. ``None`` where nothing raises the loss.

    >>> share_of_worst(0.5, 2.0).value, share_of_worst(3.0, 2.0).value
    (0.25, 1.0)
    """
    worst = max(increase, found)
    if not (math.isfinite(increase) and 0 < worst < math.inf):
        return None
    share = increase / worst
    return Interval(share, min(0.0, share), max(0.0, share), 0.0, 1, "against the worst that a search found")


def loss_increase(candidate: Sequence[float] | Reals, base: Sequence[float] | Reals, alpha: float) -> Interval:
    """The mean over items of candidate's minus base's loss per token, in nats; Student's t over items.

    >>> loss_increase([1.0, 2.0], [0.5, 1.5], 0.05).value
    0.5
    """
    differences = np.asarray(candidate, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    return student_interval(differences, alpha)
