"""Limits for one base from fine-tunes of it that are known to be good and bad: learned from the good, tried on the bad."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence, Name, digest_json
from gate.domain.limits import Suggestion, badness_of, exact_interval, suggest_together
from gate.domain.permission import DECIDING
from gate.domain.policy import Calibration, Policy, Rule

BASE_DEPENDENT = frozenset(Name) - {Name.SCORE, Name.RETENTION, Name.RETENTION_RANDOM}
"""What has no scale that holds for every base. Scores have one: the suite's margin."""
DIGITS = 4
"""Significant digits of a calibrated limit; it is rounded away from what it must let through."""


class Separation(Frozen):
    """How a rule at its limit parts the good from the bad; all rules together where ``rule`` is empty.

    ``*_held`` of ``good`` and ``bad`` do not pass; the intervals are exact (Clopper–Pearson) at the calibration's confidence.
    ``unmeasured`` bad ones are held for want of the measurement and not by its number.
    """

    rule: str
    good: int
    good_held: int
    good_interval: tuple[float, float]
    bad: int
    bad_held: int
    bad_interval: tuple[float, float]
    unmeasured: int


class Calibrated(Frozen):
    """A policy with limits for one base, and how they part good from bad; no policy, and why, where it was refused."""

    suggestions: tuple[Suggestion, ...]
    separations: tuple[Separation, ...] = ()
    policy: Policy | None = None
    refused: str = ""


def calibrated_rules(policy: Policy, names: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules to calibrate: those named, else each that can hold a version back and measures what depends on the base."""
    known = {rule.name: rule for rule in policy.rules}
    if unknown := sorted(set(names) - set(known)):
        raise InvalidInput(f"expected rules of policy {policy.name} ({', '.join(known)}), found {', '.join(unknown)}")
    chosen = [known[n] for n in dict.fromkeys(names)] or [
        rule for rule in policy.rules if rule.enforcement in DECIDING and rule.measurement in BASE_DEPENDENT
    ]
    fixed = [rule.name for rule in chosen if rule.measurement not in BASE_DEPENDENT]
    if fixed or not chosen:
        found = (
            f"{', '.join(fixed)}, which the suite's margins decide" if fixed else "none that can hold a version back"
        )
        raise InvalidInput(f"expected rules of policy {policy.name} whose limits depend on the base, found {found}")
    return tuple(chosen)


def calibrate(
    policy: Policy,
    rules: Sequence[Rule],
    good: Sequence[Evidence],
    bad: Sequence[Evidence],
    *,
    rate: float,
    alpha: float,
    day: date,
) -> Calibrated:
    """The policy with these rules' limits learned so that together they hold back at most ``rate`` of such good fine-tunes.

    Refused, and no policy, where the good ones are too few for that at confidence 1 − alpha. The bad ones move no limit:
    they show what the limits catch. Raises InvalidInput where the evidence is not of one base, suite and plan.
    """
    _check_alike(policy, good, bad)
    suggestions = suggest_together(rules, good, rate=rate, alpha=alpha)
    refused = list(dict.fromkeys(s.refused for s in suggestions if s.refused))
    if refused:
        return Calibrated(suggestions=suggestions, refused="; ".join(refused))
    limits = {s.rule: _rounded(s) for s in suggestions}
    separations = [_separation([rule], good, bad, limits, alpha) for rule in rules]
    together = _separation(rules, good, bad, limits, alpha)
    calibration = Calibration(
        base_digest=_one(good, "base_digest"),
        suite_digest=_one(good, "suite_digest"),
        plan_digest=policy.plan.digest,
        day=day,
        rules=tuple(limits),
        false_block=rate,
        confidence=1 - alpha,
        good=together.good,
        good_digest=_digest(good),
        bad=together.bad,
        bad_held=together.bad_held,
        bad_digest=_digest(bad),
    )
    return Calibrated(
        suggestions=tuple(s.model_copy(update={"limit": limits[s.rule]}) for s in suggestions),
        separations=(*separations, together),
        policy=_with_limits(policy, limits, calibration),
    )


def _with_limits(policy: Policy, limits: Mapping[str, float], calibration: Calibration) -> Policy:
    # One document that stands alone: what it was merged from is in it. What holds must be said, not left to a default.
    document = policy.model_dump(mode="json", exclude_unset=True, exclude={"layer", "parent", "origins"})
    document["enforcement"] = policy.enforcement
    for rule in document["rules"]:
        if rule["name"] in limits:
            rule["at_most" if rule.get("at_most") is not None else "at_least"] = limits[rule["name"]]
            rule["calibration"] = calibration.model_dump(mode="json")
    return Policy.model_validate(document)


def _rounded(found: Suggestion) -> float:
    """The limit in a few digits, away from what it must let through: the promise holds for it all the more."""
    assert found.limit is not None
    if found.limit == 0:
        return 0.0
    places = DIGITS - 1 - math.floor(math.log10(abs(found.limit)))
    away = math.floor if found.key == "at_least" else math.ceil
    shown = float(f"{found.limit:.{DIGITS - 1}e}")
    cleared = shown <= found.limit if found.key == "at_least" else shown >= found.limit
    return shown if cleared else float(f"{away(found.limit * 10.0**places) / 10.0**places:.{DIGITS - 1}e}")


def _separation(
    rules: Sequence[Rule], good: Sequence[Evidence], bad: Sequence[Evidence], limits: Mapping[str, float], alpha: float
) -> Separation:
    def held(evidence: Evidence) -> bool:
        return any(_past(rule, evidence, limits[rule.name]) for rule in rules)

    ours, theirs = _distinct(good), _distinct(bad)
    good_held, bad_held = sum(map(held, ours)), sum(map(held, theirs))
    return Separation(
        rule=rules[0].name if len(rules) == 1 else "",
        good=len(ours),
        good_held=good_held,
        good_interval=exact_interval(good_held, len(ours), alpha),
        bad=len(theirs),
        bad_held=bad_held,
        bad_interval=exact_interval(bad_held, len(theirs), alpha),
        unmeasured=sum(any(math.isinf(badness_of(rule, each)) for rule in rules) for each in theirs),
    )


def _past(rule: Rule, evidence: Evidence, limit: float) -> bool:
    return badness_of(rule, evidence) > (limit if rule.at_most is not None else -limit)


def _check_alike(policy: Policy, good: Sequence[Evidence], bad: Sequence[Evidence]) -> None:
    both = {e.candidate.digest for e in good} & {e.candidate.digest for e in bad}
    if both:
        raise InvalidInput(f"expected each fine-tune among the good or the bad, found {len(both)} among both")
    if not good or not bad:
        raise InvalidInput("expected fine-tunes known to be good and some known to be bad, found none of one kind")
    for what in ("base_digest", "suite_digest"):
        _one([*good, *bad], what)
    if any(e.plan != policy.plan for e in (*good, *bad)):
        raise InvalidInput(
            "expected evidence measured by the policy's plan, found another plan; measure them again with it"
        )


def _one(evidence: Sequence[Evidence], what: str) -> str:
    found = {getattr(e, what) for e in evidence}
    if len(found) != 1 or None in found:
        shown = ", ".join(sorted(str(each)[:12] for each in found))
        raise InvalidInput(f"expected one {what} in all the evidence, found {shown}; calibrate each base by itself")
    return str(found.pop())


def _distinct(evidence: Iterable[Evidence]) -> Sequence[Evidence]:
    """The same bytes count once."""
    return list({e.candidate.digest: e for e in evidence}.values())


def _digest(evidence: Iterable[Evidence]) -> str:
    return digest_json(sorted({e.candidate.digest for e in evidence}))
