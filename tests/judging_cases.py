"""Policies and evidence of every kind, for laws of the judge."""

from collections.abc import Collection
from datetime import date
from typing import Any

from builders import an_evidence
from hypothesis import strategies as st
from pydantic import ValidationError

from gate.adapters.policy_files import load_policies
from gate.domain.evidence import MEANINGS, Defect, DefectCode, Estimate, Evidence, Measurement, Name, StageCost
from gate.domain.judging import judge
from gate.domain.policy import (
    DESCRIPTIVE,
    BreakGlassTerms,
    Budget,
    Calibration,
    OnBlocked,
    Policy,
    Protected,
    Rule,
    WaiverTerms,
)
from gate.domain.verdict import Enforcement, Outcome

SHIPPED = load_policies().policies[0]
CAPABILITIES = ("safety", "math")
CONDITIONS = ("candidate.parameters > 1000000", 'version.name == "chat"')
"""Texts of ``when``; which of them are false for a candidate is drawn beside it."""
RULED = (
    Name.RETENTION,
    Name.SCORE,
    Name.BASIN_POSITION,
    Name.FORWARD_KL,
    Name.DISPLACEMENT_RELATIVE,
    Name.WORST_CASE_ALIGNMENT_Z,
)
"""Some of each kind: with a margin, of a capability or of the whole candidate, with an interval that only describes."""
numbers = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))
alphas = st.sampled_from([0.01, 0.05, 0.2])
falsehoods = st.sets(st.sampled_from(CONDITIONS))


def _calibration(base: str) -> Calibration:
    """A calibration for one base, with the suite and the plan of all evidence here."""
    evidence = an_evidence()
    return Calibration(
        base_digest=base * 64,
        suite_digest=evidence.suite_digest or "",
        plan_digest=evidence.plan.digest,
        day=date(2026, 11, 23),
        rules=("r0",),
        false_block=0.1,
        confidence=0.95,
        good=30,
        good_digest="d" * 64,
        bad=0,
        bad_held=0,
        bad_digest="e" * 64,
    )


CALIBRATIONS = (_calibration("b"), _calibration("9"))
"""Of the base that most evidence here is on, and of another."""
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "enforcement": st.sampled_from(list(Enforcement)),
    "when": st.sampled_from([None, *CONDITIONS]),
    "confidence": st.sampled_from([None, 0.9, 0.97]),
    "critical": st.booleans(),
    "failure": st.sampled_from(["closed", "open"]),
    "calibration": st.sampled_from([None, *CALIBRATIONS]),
}
"""What a rule may say besides its limit."""
TERMS: dict[str, st.SearchStrategy[Any]] = {
    "enforcement": st.sampled_from(["enforce", "enforce", "enforce", "dry_run"]),
    "budget": st.sampled_from([None, Budget(gpu_seconds=30), Budget(gpu_seconds=60)]),
    "validity_days": st.integers(1, 90),
    "waivers": st.sampled_from([None, WaiverTerms(max_days=7), WaiverTerms(max_days=60)]),
    "break_glass": st.sampled_from([None, BreakGlassTerms(max_hours=2), BreakGlassTerms(max_hours=8)]),
    "on_bypass": st.sampled_from(["alert", "restore"]),
    "on_blocked": st.sampled_from([OnBlocked(), OnBlocked(restore=True, notify=("risk",))]),
    "defects": st.dictionaries(st.sampled_from(list(DefectCode)), st.sampled_from(list(Enforcement)), max_size=1),
    "plan": st.sampled_from([SHIPPED.plan, SHIPPED.plan.model_copy(update={"alpha": 0.01})]),
    "protected": st.builds(
        lambda aliases, modes: Protected(
            aliases=tuple(sorted(aliases)), modes={name: mode for name, mode in modes.items() if name in aliases}
        ),
        st.sets(st.sampled_from(["production", "Production", "staging"])),
        st.dictionaries(st.sampled_from(["production", "staging"]), st.sampled_from(["warn", "dry_run"]), max_size=1),
    ),
}
"""What a policy may say besides its rules."""


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    open_ = draw(st.sampled_from([*[()] * 7, ("lower",), ("upper",), ("lower", "upper")]))
    lower, upper = (None if side in open_ else bound for side, bound in (("lower", low), ("upper", high)))
    return Estimate(value=value, lower=lower, upper=upper, alpha=draw(alphas))


def sound_rule(said: dict[str, Any]) -> Rule | None:
    """The rule that says this, with a reason where it fails open; ``None`` where no policy could say it."""
    try:
        return Rule.model_validate(said | {"failure_reason": "known" if said.get("failure") == "open" else None})
    except ValidationError:
        return None


@st.composite
def limits(draw: st.DrawFn, name: Name) -> dict[str, Any]:
    """A limit that a rule on this measurement may have; often one that is easily kept, so that some are approved."""
    side, easy = draw(st.sampled_from([("at_least", -0.9), ("at_most", 0.9)]))
    words = [st.just("margin")] if name is Name.RETENTION and side == "at_least" else []
    return {side: draw(st.one_of(st.just(easy), st.just(easy), numbers, *words))}


@st.composite
def ruled(draw: st.DrawFn, number: int, name: Name) -> Rule:
    """A rule with every field that one may have; the first of a policy always decides."""
    said = {"name": f"r{number}", "measurement": name, "reason": "why", **draw(limits(name))}
    if MEANINGS[name].per_capability:
        said["capability"] = draw(st.sampled_from(["*", "*", "*", "*", "safety", "safety", "absent"]))
    if number == 0:
        said["enforcement"] = draw(st.sampled_from([Enforcement.BLOCK, Enforcement.REVIEW]))
    else:
        said["enforcement"] = draw(FIELDS["enforcement"])
        for field in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2, unique=True)):
            said[field] = draw(FIELDS[field])
    if name in DESCRIPTIVE:
        said.pop("confidence", None)
    if said.get("failure") == "open":
        said.pop("critical", None)
    rule = sound_rule(said)
    assert rule is not None
    return rule


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Each measurement at most once, so that *worse* has one meaning; one rule at least always decides."""
    names = draw(st.lists(st.sampled_from(RULED), min_size=1, max_size=4, unique=True))
    rules = tuple(draw(ruled(number, name)) for number, name in enumerate(names))
    # Defects decide like rules do; the other terms are drawn where a law speaks of them.
    terms = {"defects": draw(TERMS["defects"]), "budget": draw(TERMS["budget"])}
    return SHIPPED.model_copy(update={"rules": rules, **terms})


@st.composite
def bodies(draw: st.DrawFn) -> Evidence:
    """Evidence with each measurement that rules speak of there or not."""
    wanted = [(n, c) for n in RULED for c in (CAPABILITIES if MEANINGS[n].per_capability else (None,))]
    there = [
        Measurement(name=n, capability=c, estimate=draw(estimates())) for n, c in wanted if draw(st.integers(0, 9))
    ]
    codes = draw(st.sampled_from([*[()] * 32, *((code,) for code in DefectCode)]))
    margins = draw(st.sampled_from([CAPABILITIES, CAPABILITIES, CAPABILITIES[:1], ()]))
    return an_evidence(
        measurements=tuple(there),
        defects=tuple(Defect(code=c, message="defect") for c in codes),
        errors=draw(st.sampled_from([*[()] * 7, ("failed",)])),
        margins=dict.fromkeys(margins, 0.1),
        base_digest=draw(st.sampled_from(["b" * 64, "b" * 64, "b" * 64, "9" * 64, None])),
        costs=(StageCost(stage="s", seconds=draw(st.sampled_from([1.0, 1.0, 1.0, 45.0, 75.0]))),),
    )


def idle(policy: Policy, false: Collection[str]) -> frozenset[str]:
    """The rules of a policy whose conditions are false."""
    return frozenset(rule.name for rule in policy.rules if rule.when in false)


def outcome(policy: Policy, evidence: Evidence, false: Collection[str] = ()) -> Outcome:
    return judge(policy, evidence, subject="s", now=0, idle=idle(policy, false)).outcome
