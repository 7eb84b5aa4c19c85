"""Limits from what good versions measured: a distribution-free tolerance limit that holds a stated false-block rate."""

import math
from collections.abc import Iterable

from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence, Name
from gate.domain.policy import Rule


class Suggestion(Frozen):
    """A limit for a rule from ``n`` good versions. At it, the rate at which versions like them would not pass lies in
    ``[rate_lower, rate_upper]`` with probability ≥ 1 − alpha; ``refused`` says why there is no limit instead."""

    rule: str
    measurement: Name
    key: str
    now: float | str
    n: int
    not_passing: int = 0
    limit: float | None = None
    rate_lower: float | None = None
    rate_upper: float | None = None
    refused: str = ""


def suggest(rule: Rule, good: Iterable[Evidence], *, rate: float, alpha: float = 0.05) -> Suggestion:
    """The tightest limit at which at most ``rate`` of versions like ``good`` fail to pass, at confidence 1 − alpha.

    Of each version the bound counts that must clear the limit, of its worst capability where the rule speaks of several;
    the same bytes count once. The limit is an order statistic of those, so that no shape of their distribution is
    assumed (Wilks 1941). Refused, with the number that is needed, where too few versions are there.
    """
    if not (0 < rate < 1 and 0 < alpha < 1):
        raise InvalidInput(f"expected a rate and an alpha between 0 and 1, found {rate} and {alpha}")
    rising = rule.at_most is None
    key, now = ("at_least", rule.at_least) if rising else ("at_most", rule.at_most)
    assert now is not None
    # Larger is worse from here on.
    worst = sorted(_worst(rule, each, rising) for each in {e.candidate.digest: e for e in good}.values())
    n = len(worst)
    plain = Suggestion(rule=rule.name, measurement=rule.measurement, key=key, now=now, n=n)
    allowed = _most_not_passing(n, rate, alpha)
    if allowed is None:
        why = f"expected at least {needed(rate, alpha)} versions for a rate of {rate:g}, found {n}; "
        return plain.model_copy(update={"refused": why + "gather more, or accept a higher rate"})
    bound = worst[n - 1 - allowed]
    if not math.isfinite(bound):
        why = f"{sum(map(math.isinf, worst))} of {n} versions lack the measurement or its bound; have them measured"
        return plain.model_copy(update={"refused": why})
    lower, upper = rate_interval(n, allowed, alpha)
    limit = -bound if rising else bound
    found = {"limit": limit, "not_passing": allowed, "rate_lower": lower, "rate_upper": upper}
    return plain.model_copy(update=found)


def needed(rate: float, alpha: float) -> int:
    """How many versions it takes at least: as many that none of them failing says enough.

    >>> needed(0.05, 0.05)
    72
    """
    return math.ceil(math.log(alpha / 2) / math.log1p(-rate))


def rate_interval(n: int, not_passing: int, alpha: float) -> tuple[float, float]:
    """The exact interval of the rate beyond the limit that the (not_passing + 1)-th worst of n versions sets.

    That rate is Beta(not_passing + 1, n − not_passing) distributed for any continuous distribution, and no larger
    for others.

    >>> [round(p, 4) for p in rate_interval(72, 0, 0.05)]
    [0.0004, 0.0499]
    """
    return _solve(n, not_passing, alpha / 2), _solve(n, not_passing, 1 - alpha / 2)


def _most_not_passing(n: int, rate: float, alpha: float) -> int | None:
    fitting = [m for m in range(n) if 1 - _beta_cdf(n, m, rate) <= alpha / 2] if n >= needed(rate, alpha) else []
    return max(fitting, default=None)


def _beta_cdf(n: int, m: int, p: float) -> float:
    """P(Beta(m + 1, n − m) ≤ p), which is that of more than m successes in n trials."""
    terms = (
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log(p)
            + (n - i) * math.log1p(-p)
        )
        for i in range(m + 1)
    )
    return 1 - math.fsum(terms)


def _solve(n: int, m: int, wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_cdf(n, m, middle) < wanted else (low, middle)
    return high


def _worst(rule: Rule, evidence: Evidence, rising: bool) -> float:
    """The bound that must clear the limit, as a number of which larger is worse; infinite where there is none."""
    bounds = []
    measured = {m.capability: m.estimate for m in evidence.measurements if m.name is rule.measurement}
    spoken_of = evidence.capabilities if rule.capability == "*" else (rule.capability,)
    for capability in spoken_of or (None,):
        estimate = measured.get(capability)
        bound = None if estimate is None else estimate.lower if rising else estimate.upper
        bounds.append(math.inf if bound is None else -bound if rising else bound)
    return max(bounds)
