"""How sure a mean is: intervals that hold at any sample size, and sequences that hold at any stopping time.

The betting sequence is the hedged capital process of Waudby-Smith & Ramdas ("Estimating means of bounded random
variables by betting", JRSS-B 2023): for each candidate mean m somebody bets that the truth is larger, somebody
that it is smaller; a mean at which a bettor multiplied the stake by 2/α is rejected, for ever. By Ville's
inequality the true mean is ever rejected with probability at most α, however the data made one stop.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and where its truth lies with probability at least 1 − alpha.

    ``lower`` or ``upper`` is ``None`` where nothing can be said on that side; ``n`` counts independent units;
    ``method`` names the construction.
    """

    value: float
    lower: float | None
    upper: float | None
    alpha: float
    n: int
    method: str


def clopper_pearson(k: int, n: int, alpha: float) -> Interval:
    """The exact interval of a proportion, k successes in n independent tries fixed beforehand.

    >>> found = clopper_pearson(0, 20, 0.05)
    >>> found.lower, round(found.upper, 4)
    (0.0, 0.1684)
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"expected 0 <= k <= n and n >= 1, found k={k}, n={n}")
    lower = 0.0 if k == 0 else float(stats.beta.ppf(alpha / 2, k, n - k + 1))
    upper = 1.0 if k == n else float(stats.beta.ppf(1 - alpha / 2, k + 1, n - k))
    return Interval(k / n, lower, upper, alpha, n, "clopper-pearson")


def betting_interval(xs: Iterable[float], alpha: float) -> Interval:
    """The interval of the mean of independent numbers in [0, 1], their count fixed beforehand, in any order."""
    sequence = MeanSequence(alpha)
    sequence.feed(xs)
    return sequence.interval_now()


def paired_interval(differences: Sequence[float] | Reals, alpha: float, graded: bool = False) -> Interval:
    """The interval of the mean of independent differences in [−1, 1], their count fixed beforehand, in any order.

    ``graded`` as in ``PairedSequence``; Student's t then.
    """
    if graded:
        data = np.asarray(differences, dtype=np.float64)
        return student_interval(data, alpha, least_error(data, GRADED_SURPRISE))
    return _differences(betting_interval([(float(d) + 1) / 2 for d in differences], alpha))


def is_graded(outcomes: Sequence[float] | Reals) -> bool:
    """Whether items have degrees (next-token accuracy) rather than right or wrong.

    >>> is_graded([0.0, 1.0]), is_graded([0.0, 0.5])
    (False, True)
    """
    return not bool(np.isin(np.asarray(outcomes, dtype=np.float64), (0.0, 1.0)).all())


GRADED_SURPRISE = 0.5
"""What one unseen graded item is assumed to differ by. A text whose every second token turned wrong is lost."""


def least_error(values: Reals, surprise: float = 1.0) -> float:
    """The standard error of the mean of all values had they been independent, and one more been ``surprise`` off.

    >>> round(least_error(np.zeros((6, 24))), 4)
    0.0069
    """
    count = values.size + 1
    mean = float(values.sum()) / count
    return math.sqrt(max(0.0, (float(np.square(values).sum()) + surprise**2) / count - mean**2) / count)


def mean_interval(scores: Sequence[float] | Reals, alpha: float) -> Interval:
    """The interval of a mean score of a fixed number of items: exact for 0/1 scores, betting otherwise."""
    values = np.asarray(scores, dtype=np.float64)
    if values.size and not is_graded(values):
        return clopper_pearson(int(values.sum()), values.size, alpha)
    return betting_interval(values, alpha)


def student_interval(values: Sequence[float] | Reals, alpha: float, least_error: float = 0.0) -> Interval:
    """Student's t interval of the mean of a few nearly normal values, such as means over one noise draw.

    ``least_error`` is the smallest standard error believed: a handful of values that happen to agree is not
    certainty. One value alone has no bounds.

    >>> found = student_interval([1.0, 2.0, 3.0], 0.05)
    >>> round(found.lower, 3), round(found.upper, 3)
    (-0.484, 4.484)
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size < 1 or not np.isfinite(data).all():
        raise ValueError(f"expected finite values, found {data.tolist()}")
    mean, method = float(data.mean()), "student-t"
    if data.size == 1:
        return Interval(mean, None, None, alpha, 1, method)
    error = max(float(data.std(ddof=1)) / math.sqrt(data.size), least_error)
    reach = float(stats.t.ppf(1 - alpha / 2, data.size - 1)) * error
    return Interval(mean, mean - reach, mean + reach, alpha, int(data.size), method)


class MeanSequence:
    """An anytime-valid confidence sequence of the mean of numbers in [0, 1], fed one by one.

    Each bettor is a fixed portfolio of constant bets: it stakes a fraction f of what can be lost at most, for several
    f at once. So the wealth falls with the candidate mean it bets against (a bound rejects all beyond it), does not
    depend on the order, and stays within a constant factor of the best f in hindsight. Predictable plug-in bets
    were tried: alike when all goes well, up to twice as slow after a few early losses.
    """

    GRID = 1000
    """Candidate means are i/1000; bounds are grid points."""

    # Mostly near the full stake: a fine-tune that agrees with its base on every item is the common case.
    FRACTIONS = (0.97, 0.8, 0.6, 0.4, 0.25, 0.12, 0.05)
    WEIGHTS = (8, 2, 2, 2, 2, 1, 1)

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"expected alpha between 0 and 1, found {alpha}")
        self.alpha, self.n, self._sum = alpha, 0, 0.0
        self._means: Reals = np.arange(1, self.GRID) / self.GRID
        self._f: Reals = np.array(self.FRACTIONS)[:, None]
        self._weights: Reals = np.array(self.WEIGHTS) / sum(self.WEIGHTS)
        self._larger: Reals = np.ones((len(self.FRACTIONS), self.GRID - 1))
        self._smaller: Reals = np.ones_like(self._larger)
        self._lower, self._upper = 0.0, 1.0

    def feed(self, xs: Iterable[float]) -> None:
        """Takes more observations, in the order they were drawn."""
        for x in xs:
            self._take(float(x))

    def interval(self) -> Interval:
        """The running intersection of all intervals so far; its value is the mean, moved inside if need be.

        Needs the observations in random order.
        """
        value = min(max(self._mean, self._lower), self._upper)
        return Interval(value, min(self._lower, value), max(self._upper, value), self.alpha, self.n, "betting sequence")

    def interval_now(self) -> Interval:
        """The interval of this moment's stakes alone: right for a number of observations fixed beforehand."""
        lower, upper = self._bounds()
        return Interval(self._mean, lower, upper, self.alpha, self.n, "betting")

    @property
    def _mean(self) -> float:
        return self._sum / self.n if self.n else 0.5

    def _take(self, x: float) -> None:
        if not 0 <= x <= 1:
            raise ValueError(f"expected numbers in [0, 1], found {x}")
        m, f = self._means, self._f
        # A stake may overflow to infinity (m is rejected, for ever) or vanish (the bettor is out): both are right.
        with np.errstate(over="ignore", under="ignore"):
            self._larger *= 1 - f + f * (x / m)
            self._smaller *= 1 - f + f * ((1 - x) / (1 - m))
        self.n += 1
        self._sum += x
        lower, upper = self._bounds()
        self._lower, self._upper = max(self._lower, lower), min(self._upper, upper)

    def _bounds(self) -> tuple[float, float]:
        with np.errstate(over="ignore", under="ignore"):
            too_small = self._means[self._weights @ self._larger >= 2 / self.alpha]
            too_large = self._means[self._weights @ self._smaller >= 2 / self.alpha]
        return float(too_small.max(initial=0.0)), float(too_large.min(initial=1.0))


class GradedSequence:
    """A confidence sequence of the mean of bounded numbers by the central limit theorem, fed one by one.

    Betting must allow each item to be a total loss; where items have degrees that costs five times the items. This one
    (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", Annals of Statistics 2024) holds at any stopping time too, but only asymptotically; so it says nothing
    before ``FEWEST`` items and always counts on one ``GRADED_SURPRISE`` still to come.
    """

    FEWEST = 16

    # The number of items at which the sequence is made to be narrowest.
    SHARPEST = 48

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"expected alpha between 0 and 1, found {alpha}")
        self.alpha, self.n = alpha, 0
        self._sum = self._squares = 0.0
        self._lower, self._upper = -1.0, 1.0

    def feed(self, xs: Iterable[float]) -> None:
        """Takes more observations, in the order they were drawn."""
        for x in xs:
            self._take(float(x))

    def interval(self) -> Interval:
        """The running intersection of all intervals so far; its value is the mean, moved inside if need be."""
        value = min(max(self._sum / self.n if self.n else 0.0, self._lower), self._upper)
        lower, upper = min(self._lower, value), max(self._upper, value)
        return Interval(value, lower, upper, self.alpha, self.n, "asymptotic sequence")

    def _take(self, x: float) -> None:
        if not -1 <= x <= 1:
            raise ValueError(f"expected numbers in [-1, 1], found {x}")
        self.n, self._sum, self._squares = self.n + 1, self._sum + x, self._squares + x * x
        if self.n < self.FEWEST:
            return
        mean, reach = self._sum / self.n, self._deviation() * self._reach()
        self._lower, self._upper = max(self._lower, mean - reach), min(self._upper, mean + reach)

    def _deviation(self) -> float:
        count = self.n + 1
        return math.sqrt(max(0.0, (self._squares + GRADED_SURPRISE**2) / count - (self._sum / count) ** 2))

    def _reach(self) -> float:
        """Half the width in standard deviations, from the normal mixture whose best time is ``SHARPEST``."""
        log = -2 * math.log(self.alpha)
        scaled = self.n * (log + math.log(log) + 1) / self.SHARPEST
        return math.sqrt(2 * (scaled + 1) / (self.n * scaled) * math.log(math.sqrt(scaled + 1) / self.alpha))


class PairedSequence:
    """Candidate minus base, item by item, until it is decided whether more than a margin was lost.

    Takes differences in [−1, 1] and holds an anytime-valid confidence sequence of their mean; its two bettors are
    the non-inferiority e-process (H₀: mean ≤ −margin) and its mirror image, for all margins at once. ``graded`` says
    that items have degrees; the sequence is asymptotic then (``GradedSequence``).

    >>> paired = PairedSequence(alpha=0.01)
    >>> paired.feed([0.0] * 60)
    >>> paired.decided(margin=0.1)
    'retained'
    """

    def __init__(self, alpha: float, graded: bool = False) -> None:
        self.alpha, self.graded = alpha, graded
        self._halves, self._degrees = MeanSequence(alpha), GradedSequence(alpha)
        self._differences: list[float] = []

    def feed(self, differences: Iterable[float]) -> None:
        """Takes more differences, in the order the items were drawn."""
        for difference in differences:
            if self.graded:
                self._degrees.feed([difference])
            else:
                self._halves.feed([(float(difference) + 1) / 2])
            self._differences.append(float(difference))

    def interval(self) -> Interval:
        """The interval of the mean difference."""
        return self._degrees.interval() if self.graded else _differences(self._halves.interval())

    def decided(self, margin: float) -> Literal["retained", "lost"] | None:
        """``retained`` when the whole interval is above −margin, ``lost`` when all is below, else ``None``."""
        found = self.interval()
        if found.lower is not None and found.lower >= -margin:
            return "retained"
        if found.upper is not None and found.upper < -margin:
            return "lost"
        return None

    def state(self) -> Mapping[str, Any]:
        """All there is to know, JSON-serialisable: what was fed determines everything else."""
        return {"alpha": self.alpha, "graded": self.graded, "differences": list(self._differences)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "PairedSequence":
        """The sequence as it was when ``state()`` was taken."""
        sequence = cls(float(state["alpha"]), bool(state["graded"]))
        sequence.feed(state["differences"])
        return sequence


def _differences(half: Interval) -> Interval:
    """The interval of x as that of 2x − 1; rounded, so that a bound on the grid equals the margin it stands for."""
    value, lower, upper = (None if x is None else round(2 * x - 1, 9) for x in (half.value, half.lower, half.upper))
    assert value is not None
    return Interval(value, lower, upper, half.alpha, half.n, f"paired {half.method}")
