"""Laws of the judge: knowing less or measuring worse never helps a candidate."""

from hypothesis import given, settings
from hypothesis import strategies as st
from judging_cases import CAPABILITIES, CONDITIONS, RULED, bodies, estimates, falsehoods, idle, outcome, policies

from gate.domain.evidence import MEANINGS, Estimate, Evidence, Measurement, StageCost
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


def never_helps(policy: Policy, before: Evidence, after: Evidence, false: set[str]) -> bool:
    """Whether what became of the evidence turned nothing into an approval that was none."""
    return outcome(policy, after, false) is not Outcome.APPROVED or outcome(policy, before, false) is Outcome.APPROVED


@given(policies(), bodies(), falsehoods, st.data(), st.floats(0.001, 1))
def test_worse_numbers_never_turn_into_an_approval(
    policy: Policy, evidence: Evidence, false: set[str], data: st.DataObject, by: float
) -> None:
    rule = data.draw(st.sampled_from(policy.rules))
    direction = -by if rule.at_least is not None else by
    for measurement in [m for m in evidence.measurements if m.name is rule.measurement]:
        worse = replaced(evidence, measurement, shifted(measurement.estimate, direction))
        assert never_helps(policy, evidence, worse, false)


@given(policies(), bodies(), falsehoods)
def test_taking_evidence_away_approves_only_where_a_rule_says_that_it_fails_open(
    policy: Policy, evidence: Evidence, false: set[str]
) -> None:
    opening = {rule.measurement for rule in policy.rules if rule.failure == "open"}
    for measurement in evidence.measurements:
        less = replaced(evidence, measurement, None)
        assert never_helps(policy, evidence, less, false) or measurement.name in opening


@given(policies(), bodies())
def test_a_rule_fails_open_only_where_it_says_so_and_its_measurement_is_missing(
    policy: Policy, evidence: Evidence
) -> None:
    rules = {rule.name: rule for rule in policy.rules}
    for found in judge(policy, evidence, subject="s", now=0).findings:
        unmeasured = evidence.find(found.measurement, found.capability) is None
        assert found.failed_open == (unmeasured and rules[found.rule].failure == "open")
        assert not found.failed_open or not rules[found.rule].critical


@given(policies(), bodies(), falsehoods, st.floats(0.001, 1))
def test_knowing_less_exactly_never_turns_into_an_approval(
    policy: Policy, evidence: Evidence, false: set[str], by: float
) -> None:
    for measurement in evidence.measurements:
        lower, upper = measurement.estimate.lower, measurement.estimate.upper
        wider = {"lower": None if lower is None else lower - by, "upper": None if upper is None else upper + by}
        blurred = replaced(evidence, measurement, measurement.estimate.model_copy(update=wider))
        assert never_helps(policy, evidence, blurred, false)


@given(policies(), bodies(), falsehoods, st.sampled_from(["lower", "upper"]))
def test_losing_a_bound_never_turns_into_an_approval(
    policy: Policy, evidence: Evidence, false: set[str], bound: str
) -> None:
    for measurement in evidence.measurements:
        blurred = replaced(evidence, measurement, measurement.estimate.model_copy(update={bound: None}))
        assert never_helps(policy, evidence, blurred, false)


@given(policies(), bodies(), falsehoods, st.floats(0.01, 0.4))
def test_an_interval_that_is_less_sure_never_turns_into_an_approval(
    policy: Policy, evidence: Evidence, false: set[str], more: float
) -> None:
    for measurement in evidence.measurements:
        unsure = {"alpha": measurement.estimate.alpha + more}
        less_sure = replaced(evidence, measurement, measurement.estimate.model_copy(update=unsure))
        assert never_helps(policy, evidence, less_sure, false)


@given(policies(), bodies(), falsehoods, st.floats(1, 100))
def test_what_costs_more_or_was_measured_on_another_base_never_turns_into_an_approval(
    policy: Policy, evidence: Evidence, false: set[str], more: float
) -> None:
    costlier = evidence.model_copy(update={"costs": (*evidence.costs, StageCost(stage="more", seconds=more))})
    assert never_helps(policy, evidence, costlier, false)
    assert never_helps(policy, evidence, evidence.model_copy(update={"base_digest": "0" * 64}), false)


@given(policies(), bodies(), falsehoods)
def test_a_rule_that_applies_besides_never_turns_into_an_approval(
    policy: Policy, evidence: Evidence, false: set[str]
) -> None:
    for condition in CONDITIONS:
        more = outcome(policy, evidence, false - {condition})
        assert more is not Outcome.APPROVED or outcome(policy, evidence, false) is Outcome.APPROVED


@given(policies(), bodies(), falsehoods)
def test_an_approval_means_that_every_deciding_rule_passed_on_a_number(
    policy: Policy, evidence: Evidence, false: set[str]
) -> None:
    verdict = judge(policy, evidence, subject="s", now=0, idle=idle(policy, false))
    deciding = [f for f in verdict.findings if f.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW)]
    spent = sum(cost.seconds for cost in evidence.costs)

    assert (verdict.outcome is Outcome.APPROVED) == (
        all(f.result is Result.PASS and f.estimate is not None for f in deciding)
        and len(deciding) > 0
        and not evidence.errors
        and not any(d.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW) for d in verdict.defects)
        and (policy.budget is None or spent <= policy.budget.gpu_seconds)
    )
    assert verdict.reason


@given(policies(), bodies(), falsehoods, st.lists(estimates(), min_size=20, max_size=20))
def test_once_decided_no_further_measurement_changes_the_outcome(
    policy: Policy, evidence: Evidence, false: set[str], later: list[Estimate]
) -> None:
    # A spent budget ends the measuring whatever is open; that it is never approved is said above.
    policy = policy.model_copy(update={"budget": None})
    if not decided(policy, evidence):
        return
    have = {(m.name, m.capability) for m in evidence.measurements}
    wanted = [(n, c) for n in RULED for c in (CAPABILITIES if MEANINGS[n].per_capability else (None,))]
    absent = [key for key in wanted if key not in have]
    added = tuple(Measurement(name=n, capability=c, estimate=e) for (n, c), e in zip(absent, later, strict=False))
    more = evidence.model_copy(update={"measurements": evidence.measurements + added})

    assert outcome(policy, evidence, false) is outcome(policy, more, false) is Outcome.BLOCKED


@settings(max_examples=25)
@given(policies(), bodies())
def test_equal_evidence_gets_an_equal_verdict_in_whatever_order_it_was_measured(
    policy: Policy, evidence: Evidence
) -> None:
    backwards = evidence.model_copy(update={"measurements": evidence.measurements[::-1]})
    one, other = (judge(policy, e, subject="s", now=0) for e in (evidence, backwards))

    assert (one.outcome, one.findings, one.reason) == (other.outcome, other.findings, other.reason)
