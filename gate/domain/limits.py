"""Limits from what good versions measured: distribution-free tolerance limits that hold a stated false-block rate."""

import math
from collections.abc import Iterable, Sequence

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

    ``suggest_together`` for one rule alone: the limit is an order statistic (Wilks 1941).
    """
    (found,) = suggest_together([rule], good, rate=rate, alpha=alpha)
    return found


def suggest_together(
    rules: Sequence[Rule], good: Iterable[Evidence], *, rate: float, alpha: float = 0.05
) -> tuple[Suggestion, ...]:
    """Limits for several rules at which at most ``rate`` of versions like ``good`` fail any of them, at confidence 1 − alpha.

    Of each version the bound counts that must clear the limit, of its worst capability where a rule speaks of several;
    the same bytes count once. The rules take turns in cutting off the worst version that is left, as often as the rate
    allows; where each stopped is its limit. How many are cut off is all that the rate of the rest depends on, so no
    shape of their joint distribution is assumed (Tukey 1947: the cut-off blocks are statistically equivalent). All are
    refused, with the number that is needed, where too few versions are there; one is, where versions lack what it asks.
    """
    _refuse_outside(rate, alpha)
    versions = list({e.candidate.digest: e for e in good}.values())
    n = len(versions)
    cuts = _most_cut(n, rate, alpha)
    plain = [_plain(rule, n) for rule in rules]
    if cuts < len(rules):
        of = "a rate" if len(rules) == 1 else f"{len(rules)} rules with a rate together"
        why = f"expected at least {needed(rate, alpha, len(rules))} versions for {of} of {rate:g}, found {n}; "
        return tuple(p.model_copy(update={"refused": why + "gather more, or accept a higher rate"}) for p in plain)
    badness = [[badness_of(rule, version) for version in versions] for rule in rules]
    rates = rate_interval(n, cuts - 1, alpha)
    each = zip(plain, badness, _cut(badness, cuts), strict=True)
    return tuple(_limited(one, column, limit, rates) for one, column, limit in each)


def needed(rate: float, alpha: float, rules: int = 1) -> int:
    """How many versions it takes at least: as many that none of them failing, but for one cut by each rule, says enough.

    >>> needed(0.05, 0.05), needed(0.05, 0.05, rules=2)
    (72, 110)
    """
    _refuse_outside(rate, alpha)
    n = max(rules, math.ceil(math.log(alpha / 2) / math.log1p(-rate)))
    while 1 - _beta_cdf(n, rules - 1, rate) > alpha / 2:
        n += 1
    return n


def rate_interval(n: int, not_passing: int, alpha: float) -> tuple[float, float]:
    """The exact interval of the rate beyond the limit that the (not_passing + 1)-th worst of n versions sets.

    That rate is Beta(not_passing + 1, n − not_passing) distributed for any continuous distribution, and no larger
    for others; also where several rules together cut off not_passing + 1 versions.

    >>> [round(p, 4) for p in rate_interval(72, 0, 0.05)]
    [0.0004, 0.0499]
    """
    return _solve(n, not_passing, alpha / 2), _solve(n, not_passing, 1 - alpha / 2)


def exact_interval(hits: int, n: int, alpha: float) -> tuple[float, float]:
    """The exact (Clopper–Pearson) interval of a rate of which ``hits`` of ``n`` were seen; all of [0, 1] without any.

    >>> [round(p, 4) for p in exact_interval(0, 33, 0.05)], exact_interval(0, 0, 0.05)
    ([0.0, 0.1058], (0.0, 1.0))
    """
    lower = _solve(n, hits - 1, alpha / 2) if hits else 0.0
    upper = _solve(n, hits, 1 - alpha / 2) if hits < n else 1.0
    return lower, upper


def badness_of(rule: Rule, evidence: Evidence) -> float:
    """The bound that must clear a rule's limit, as a number of which larger is worse; infinite where there is none."""
    rising = rule.at_most is None
    bounds = []
    measured = {m.capability: m.estimate for m in evidence.measurements if m.name is rule.measurement}
    spoken_of = evidence.capabilities if rule.capability == "*" else (rule.capability,)
    for capability in spoken_of or (None,):
        estimate = measured.get(capability)
        bound = None if estimate is None else estimate.lower if rising else estimate.upper
        bounds.append(math.inf if bound is None else -bound if rising else bound)
    return max(bounds)


def _refuse_outside(rate: float, alpha: float) -> None:
    if not (0 < rate < 1 and 0 < alpha < 1):
        raise InvalidInput(f"expected a rate and an alpha between 0 and 1, found {rate} and {alpha}")


def _plain(rule: Rule, n: int) -> Suggestion:
    key, now = ("at_least", rule.at_least) if rule.at_most is None else ("at_most", rule.at_most)
    assert now is not None
    return Suggestion(rule=rule.name, measurement=rule.measurement, key=key, now=now, n=n)


def _limited(plain: Suggestion, badness: Sequence[float], limit: float, rates: tuple[float, float]) -> Suggestion:
    if not math.isfinite(limit):
        why = f"{sum(map(math.isinf, badness))} of {plain.n} versions lack the measurement or its bound; have them measured"
        return plain.model_copy(update={"refused": why})
    found = {
        "limit": -limit if plain.key == "at_least" else limit,
        "not_passing": sum(each > limit for each in badness),
        "rate_lower": rates[0],
        "rate_upper": rates[1],
    }
    return plain.model_copy(update=found)


def _cut(badness: Sequence[Sequence[float]], cuts: int) -> Sequence[float]:
    """Each rule's limit once the rules, taking turns, have cut off so many versions, each the worst that was left."""
    left = set(range(len(badness[0])))
    limits = [math.inf] * len(badness)
    for turn in range(cuts):
        rule = turn % len(badness)
        worst = max(sorted(left), key=badness[rule].__getitem__)
        limits[rule] = badness[rule][worst]
        left.remove(worst)
    return limits


def _most_cut(n: int, rate: float, alpha: float) -> int:
    """How many versions may be cut off so that the rate of their like is at most ``rate``, at confidence 1 − alpha / 2."""
    cuts = 0
    while cuts < n and 1 - _beta_cdf(n, cuts, rate) <= alpha / 2:
        cuts += 1
    return cuts


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
