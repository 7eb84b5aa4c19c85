"""Policies and evidence of every kind, for laws of the judge."""

from typing import Any

from builders import an_evidence
from hypothesis import strategies as st

from gate.adapters.policy_files import load_policies
from gate.domain.evidence import MEANINGS, Defect, DefectCode, Estimate, Evidence, Measurement, Name
from gate.domain.judging import judge
from gate.domain.policy import Policy, Rule
from gate.domain.verdict import Enforcement, Outcome
from gate.domain.vocabulary import SHOWN_ONLY

SHIPPED = load_policies().policies[0]
CAPABILITIES = ("safety", "math")
RULED = [name for name in Name if name not in SHOWN_ONLY]
numbers = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    lower, upper = draw(st.sampled_from([(low, high), (low, high), (None, high), (low, None), (None, None)]))
    return Estimate(value=value, lower=lower, upper=upper, alpha=0.05)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Each measurement at most once, so that *worse* has one meaning; one rule at least decides."""
    names = draw(st.lists(st.sampled_from(RULED), min_size=1, max_size=4, unique=True))
    enforcements = [draw(st.sampled_from(list(Enforcement))) for _ in names]
    enforcements[0] = draw(st.sampled_from([Enforcement.BLOCK, Enforcement.REVIEW]))
    rules = []
    for i, (name, enforcement) in enumerate(zip(names, enforcements, strict=True)):
        limit: dict[str, Any] = {draw(st.sampled_from(["at_least", "at_most"])): draw(numbers)}
        star = "*" if MEANINGS[name].per_capability else None
        rules.append(
            Rule(name=f"r{i}", measurement=name, capability=star, enforcement=enforcement, reason="why", **limit)
        )
    return SHIPPED.model_copy(update={"rules": tuple(rules), "defects": {}})


@st.composite
def bodies(draw: st.DrawFn) -> Evidence:
    """Evidence with each measurement of the vocabulary there or not."""
    wanted = [(n, c) for n in Name for c in (CAPABILITIES if MEANINGS[n].per_capability else (None,))]
    there = [
        Measurement(name=n, capability=c, estimate=draw(estimates())) for n, c in wanted if draw(st.integers(0, 9))
    ]
    codes = draw(st.lists(st.sampled_from(list(DefectCode)), max_size=1))
    return an_evidence(
        measurements=tuple(there),
        defects=tuple(Defect(code=c, message="defect") for c in codes),
        errors=draw(st.sampled_from([(), (), (), ("failed",)])),
    )


def outcome(policy: Policy, evidence: Evidence) -> Outcome:
    return judge(policy, evidence, subject="s", now=0).outcome
