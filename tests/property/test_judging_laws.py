"""Laws of the judge: knowing less or measuring worse never helps a candidate."""

from hypothesis import given, settings
from hypothesis import strategies as st
from judging_cases import CAPABILITIES, bodies, estimates, outcome, policies

from gate.domain.evidence import MEANINGS, Estimate, Evidence, Measurement, Name
from gate.domain.judging import decided, judge
from gate.domain.policy import Policy
from gate.domain.verdict import Enforcement, Outcome, Result


def shifted(estimate: Estimate, by: float) -> Estimate:
    move = {k: None if v is None else v + by for k, v in (("lower", estimate.lower), ("upper", estimate.upper))}
    return estimate.model_copy(update={"value": estimate.value + by, **move})


def replaced(evidence: Evidence, old: Measurement, new: Estimate | None) -> Evidence:
    changed = [
        m if m is not old else (None if new is None else old.model_copy(update={"estimate": new}))
        for m in evidence.measurements
    ]
    return evidence.model_copy(update={"measurements": tuple(m for m in changed if m is not None)})


@given(policies(), bodies(), st.data(), st.floats(0.001, 1))
def test_worse_numbers_never_turn_into_an_approval(
    policy: Policy, evidence: Evidence, data: st.DataObject, by: float
) -> None:
    rule = data.draw(st.sampled_from(policy.rules))
    direction = -by if rule.at_least is not None else by
    for measurement in [m for m in evidence.measurements if m.name is rule.measurement]:
        worse = replaced(evidence, measurement, shifted(measurement.estimate, direction))
        assert outcome(policy, worse) is not Outcome.APPROVED or outcome(policy, evidence) is Outcome.APPROVED


@given(policies(), bodies(), st.data())
def test_taking_evidence_away_never_turns_into_an_approval(
    policy: Policy, evidence: Evidence, data: st.DataObject
) -> None:
    for measurement in evidence.measurements:
        less = replaced(evidence, measurement, None)
        assert outcome(policy, less) is not Outcome.APPROVED or outcome(policy, evidence) is Outcome.APPROVED


@given(policies(), bodies(), st.floats(0.001, 1))
def test_knowing_less_exactly_never_turns_into_an_approval(policy: Policy, evidence: Evidence, by: float) -> None:
    for measurement in evidence.measurements:
        lower, upper = measurement.estimate.lower, measurement.estimate.upper
        wider = {"lower": None if lower is None else lower - by, "upper": None if upper is None else upper + by}
        blurred = replaced(evidence, measurement, measurement.estimate.model_copy(update=wider))
        assert outcome(policy, blurred) is not Outcome.APPROVED or outcome(policy, evidence) is Outcome.APPROVED


@given(policies(), bodies(), st.sampled_from(["lower", "upper"]))
def test_losing_a_bound_never_turns_into_an_approval(policy: Policy, evidence: Evidence, bound: str) -> None:
    for measurement in evidence.measurements:
        blurred = replaced(evidence, measurement, measurement.estimate.model_copy(update={bound: None}))
        assert outcome(policy, blurred) is not Outcome.APPROVED or outcome(policy, evidence) is Outcome.APPROVED


@given(policies(), bodies())
def test_an_approval_means_that_every_deciding_rule_passed_on_a_number(policy: Policy, evidence: Evidence) -> None:
    verdict = judge(policy, evidence, subject="s", now=0)
    deciding = [f for f in verdict.findings if f.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW)]

    assert (verdict.outcome is Outcome.APPROVED) == (
        all(f.result is Result.PASS and f.estimate is not None for f in deciding)
        and not evidence.errors
        and not any(d.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW) for d in verdict.defects)
    )
    assert verdict.reason


@given(policies(), bodies(), st.lists(estimates(), min_size=20, max_size=20))
def test_once_decided_no_further_measurement_changes_the_outcome(
    policy: Policy, evidence: Evidence, later: list[Estimate]
) -> None:
    if not decided(policy, evidence):
        return
    have = {(m.name, m.capability) for m in evidence.measurements}
    wanted = [(n, c) for n in Name for c in (CAPABILITIES if MEANINGS[n].per_capability else (None,))]
    absent = [key for key in wanted if key not in have]
    added = tuple(Measurement(name=n, capability=c, estimate=e) for (n, c), e in zip(absent, later, strict=False))
    more = evidence.model_copy(update={"measurements": evidence.measurements + added})

    assert outcome(policy, evidence) is outcome(policy, more) is Outcome.BLOCKED


@settings(max_examples=25)
@given(policies(), bodies())
def test_equal_evidence_gets_an_equal_verdict_in_whatever_order_it_was_measured(
    policy: Policy, evidence: Evidence
) -> None:
    backwards = evidence.model_copy(update={"measurements": evidence.measurements[::-1]})
    one, other = (judge(policy, e, subject="s", now=0) for e in (evidence, backwards))

    assert (one.outcome, one.findings, one.reason) == (other.outcome, other.findings, other.reason)
