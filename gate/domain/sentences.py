"""Findings in plain words: numbers rounded to their uncertainty, never so far that they hide the decision."""

import math
from collections.abc import Sequence

from gate.domain.evidence import MEANINGS, Estimate, Evidence, Name
from gate.domain.policy import Calibration, Rule

MOST_DECIMALS = 6
NOUNS = {
    Name.DISPLACEMENT_RELATIVE: "relative displacement",
    Name.WORST_CASE_ALIGNMENT: "alignment with the worst-case direction",
    Name.WORST_CASE_ALIGNMENT_Z: "alignment with the worst-case direction in standard deviations",
}


def number(value: float, places: int, *, sign: bool = False) -> str:
    """A number with a true minus, and no ``-0.00``.

    >>> number(-0.5, 2), number(-0.001, 2), number(0.25, 1, sign=True)
    ('−0.50', '0.00', '+0.2')
    """
    text = f"{value:{'+' if sign else ''}.{places}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def limit_text(limit: float, name: Name) -> str:
    """A limit as the policy wrote it; on scores with two decimals like the numbers beside it.

    >>> limit_text(-0.1, Name.RETENTION), limit_text(0.125, Name.SCORE), limit_text(3, Name.HEADROOM)
    ('−0.10', '0.125', '3')
    """
    padded = f"{limit:.2f}"
    keeps = _is_score(name) and float(padded) == limit
    return (padded if keeps else f"{limit:.15g}").replace("-", "−")


def decimals(estimate: Estimate, name: Name, limit: float | None) -> int:
    """How many decimals the interval's width supports, and the limit needs to be told apart from the bounds.

    >>> decimals(Estimate(value=-1, lower=-1, upper=-0.93, alpha=0.05), Name.RETENTION, -0.1)
    2
    """
    bounds = [b for b in (estimate.lower, estimate.value, estimate.upper) if b is not None]
    spread = max(bounds) - min(bounds)
    if spread > 0:
        places = -math.floor(math.log10(spread))
    else:
        places = 2 - math.floor(math.log10(abs(estimate.value))) if estimate.value else 2
    places = max(2 if _is_score(name) else 0, min(places, MOST_DECIMALS))
    while limit is not None and places < MOST_DECIMALS and _hides(bounds, limit, places):
        places += 1
    return places


def _is_score(name: Name) -> bool:
    return MEANINGS[name].unit.startswith("score")


def _hides(bounds: Sequence[float], limit: float, places: int) -> bool:
    return any(b != limit and float(f"{b:.{places}f}") == float(f"{limit:.{places}f}") for b in bounds)


def measured(rule: Rule, capability: str | None, estimate: Estimate, limit: float, evidence: Evidence) -> str:
    """What was measured and the limit it was held against, without a full stop."""
    if rule.measurement is Name.RETENTION and capability is not None:
        return _retention(capability, estimate, limit, evidence)
    places = decimals(estimate, rule.measurement, limit)
    side = "at least" if rule.at_least is not None else "at most"
    details = [*_interval(estimate, places, sign=False), f"limit {side} {limit_text(limit, rule.measurement)}"]
    return f"{_noun(rule.measurement, capability)} is {number(estimate.value, places)} ({'; '.join(details)})"


def unmeasured(rule: Rule, capability: str | None, evidence: Evidence) -> str:
    """What was not measured, and why; told by the evidence where it knows."""
    noun = _noun(rule.measurement, None if capability == "*" else capability)
    return f"{noun} was not measured: {_why_unmeasured(rule, capability, evidence)}"


def uncalibrated(rule: Rule, capability: str | None, learned_on: Calibration, evidence: Evidence) -> str:
    """That a limit says nothing of this candidate, and which of base, suite and plan is another one."""
    found = (evidence.base_digest, evidence.suite_digest, evidence.plan.digest)
    differ = [
        f"{what} {wanted[:12]}, found {(here or 'none')[:12]}"
        for what, wanted, here in zip(("base", "suite", "plan"), learned_on.scope, found, strict=True)
        if wanted != here
    ]
    noun = _noun(rule.measurement, None if capability == "*" else capability)
    return f"{noun} has no limit here: it was calibrated for {'; '.join(differ)}; calibrate it for this one"


def _why_unmeasured(rule: Rule, capability: str | None, evidence: Evidence) -> str:
    name = rule.measurement.value
    told = evidence.unmeasured.get(f"{name}/{capability}") or evidence.unmeasured.get(name)
    if told:
        return told
    if capability == "*":
        return "the evidence names no capability; check that the base was found and its suite has items"
    if capability is not None and capability not in evidence.capabilities:
        known = ", ".join(evidence.capabilities) or "none"
        return f"the suite has no capability '{capability}' (it has: {known})"
    if rule.at_least == "margin" and capability not in evidence.margins:
        return f"the suite gives '{capability}' no margin"
    return "the evidence does not have it"


def _retention(capability: str, change: Estimate, limit: float, evidence: Evidence) -> str:
    places = decimals(change, Name.RETENTION, limit)
    shown = number(change.value, places, sign=True)
    details = [f"change {shown}", *_interval(change, places, sign=True)]
    return f"{_title(capability)} {_movement(capability, change, places, evidence)} ({', '.join(details)}; limit {limit_text(limit, Name.RETENTION)})"


def _movement(capability: str, change: Estimate, places: int, evidence: Evidence) -> str:
    score = evidence.find(Name.SCORE, capability)
    moved = float(number(change.value, places).replace("−", "-"))
    if score is None:
        return "fell" if moved < 0 else "rose" if moved > 0 else "stayed the same"
    after = number(score.value, places)
    if moved == 0:
        return f"stayed at {after}"
    before = number(min(1.0, max(0.0, score.value - change.value)), places)
    return f"{'fell' if moved < 0 else 'rose'} from {before} to {after}"


def _interval(estimate: Estimate, places: int, *, sign: bool) -> list[str]:
    if estimate.lower == estimate.upper == estimate.value:
        return []
    low, high = (
        "unbounded" if b is None else number(b, places, sign=sign and b > 0) for b in (estimate.lower, estimate.upper)
    )
    return [f"{100 * (1 - estimate.alpha):.3g} % interval {low} to {high}"]


def _noun(name: Name, capability: str | None) -> str:
    plain = NOUNS.get(name, name.value.replace("_", " "))
    return plain.capitalize() if capability is None else f"{_title(capability)}: {plain}"


def _title(capability: str) -> str:
    return capability[:1].upper() + capability[1:]
