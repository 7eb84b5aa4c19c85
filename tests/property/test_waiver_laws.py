"""Laws of waivers: no order, no clock and no crowd of them lets through what one in force would not."""

from random import Random

from builders import an_evidence
from hypothesis import given
from hypothesis import strategies as st
from judging_cases import CAPABILITIES, estimates, falsehoods, idle, policies

from gate.domain.evidence import MEANINGS, Defect, DefectCode, Evidence, Measurement, StageCost
from gate.domain.judging import judge
from gate.domain.permission import answer
from gate.domain.policy import Policy, WaiverTerms
from gate.domain.verdict import Outcome, Result
from gate.domain.waiver import Approval, Waiver
from gate.domain.waiving import objection

NOW = 1_795_000_000
DAY = 86_400
DIGEST = an_evidence().candidate.digest
PEOPLE = ("ana", "bo", "cy", "sub")


@st.composite
def waived_policies(draw: st.DrawFn) -> Policy:
    policy = draw(policies())
    rules = tuple(
        rule.model_copy(update={"critical": rule.failure == "closed" and draw(st.booleans())}) for rule in policy.rules
    )
    return policy.model_copy(update={"rules": rules, "waivers": WaiverTerms(max_days=draw(st.integers(1, 60)))})


@st.composite
def waivers(draw: st.DrawFn) -> Waiver:
    """Most of them speak of these bytes and of a rule that is there."""
    begun = NOW - draw(st.integers(0, 20)) * DAY
    names = sorted(draw(st.sets(st.sampled_from(PEOPLE))))
    return Waiver(
        candidate_digest=draw(st.sampled_from([DIGEST, DIGEST, DIGEST, "f" * 64])),
        policy=draw(st.sampled_from(["default", "default", "default", "other"])),
        rule=draw(st.sampled_from(["r0", "r1", "r2", "r3"])),
        owner="nlp",
        reason="why",
        ticket="RISK-7",
        requested_by="sub",
        requested_at=begun,
        expires_at=begun + draw(st.integers(1, 70 * DAY)),
        approvals=tuple(Approval(approver=name, at=begun) for name in names),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Policy, Evidence]:
    """A policy, and evidence with a number, or none, for each capability of each of its rules."""
    policy = draw(waived_policies())
    wanted = [
        (rule.measurement, capability)
        for rule in policy.rules
        for capability in (CAPABILITIES if MEANINGS[rule.measurement].per_capability else (None,))
    ]
    there = [
        Measurement(name=n, capability=c, estimate=draw(estimates())) for n, c in wanted if draw(st.integers(0, 9))
    ]
    codes = draw(st.sampled_from([(), (), (), *((code,) for code in DefectCode)]))
    return policy, an_evidence(
        measurements=tuple(there),
        defects=tuple(Defect(code=c, message="defect") for c in codes),
        errors=draw(st.sampled_from([(), (), (), ("failed",)])),
        costs=(StageCost(stage="s", seconds=draw(st.sampled_from([1.0, 1.0, 45.0, 75.0]))),),
    )


crowds = st.lists(waivers(), max_size=6)


@given(cases(), crowds, falsehoods)
def test_a_waived_finding_rests_on_a_waiver_that_counts_and_the_verdict_ends_with_it(
    case: tuple[Policy, Evidence], crowd: list[Waiver], false: set[str]
) -> None:
    policy, evidence = case
    assert policy.waivers is not None
    verdict = judge(policy, evidence, subject="s", now=NOW, idle=idle(policy, false), waivers=crowd)
    used = {waiver.id: waiver for waiver in verdict.waivers}
    for finding in (f for f in verdict.findings if f.result is Result.WAIVED):
        waiver = used[finding.waiver or ""]
        critical = next(r.critical for r in policy.rules if r.name == finding.rule)
        assert (waiver.rule, waiver.candidate_digest, waiver.policy) == (finding.rule, DIGEST, policy.name)
        assert waiver.expires_at > NOW
        assert waiver.expires_at - waiver.requested_at <= policy.waivers.max_days * DAY
        assert waiver.expires_at >= verdict.expires_at
        assert set(waiver.approvers) - {"sub"}
        assert len(waiver.approvers) >= 1 + critical
        assert finding.estimate is not None
    assert set(used) == {f.waiver for f in verdict.findings if f.waiver}


@given(cases(), crowds, falsehoods, st.integers(-3 * DAY, 100 * DAY), st.integers(-7200, 7200))
def test_no_clock_makes_a_waived_approval_outlive_its_waiver(
    case: tuple[Policy, Evidence], crowd: list[Waiver], false: set[str], later: int, skew: int
) -> None:
    policy, evidence = case
    verdict = judge(policy, evidence, subject="s", now=NOW + skew, idle=idle(policy, false), waivers=crowd)
    reader = NOW + later
    allowed = answer(policy.model_copy(update={"enforcement": "enforce"}), "done", None, verdict, reader).allowed
    assert not (allowed and any(reader >= waiver.expires_at for waiver in verdict.waivers))


@given(cases(), crowds, st.randoms())
def test_neither_the_order_of_waivers_nor_of_approvals_matters(
    case: tuple[Policy, Evidence], crowd: list[Waiver], random: Random
) -> None:
    policy, evidence = case
    shuffled = list(crowd)
    random.shuffle(shuffled)
    built = []
    for waiver in shuffled:
        again, approvals = waiver.model_copy(update={"approvals": ()}), list(waiver.approvals)
        random.shuffle(approvals)
        for approval in approvals:
            again = again.approved(approval)
        built.append(again)
    straight, mixed = (judge(policy, evidence, subject="s", now=NOW, waivers=each) for each in (crowd, built))
    assert straight.digest == mixed.digest


@given(cases(), crowds, waivers())
def test_one_waiver_more_never_turns_an_approval_into_anything_else(
    case: tuple[Policy, Evidence], crowd: list[Waiver], more: Waiver
) -> None:
    policy, evidence = case
    before = judge(policy, evidence, subject="s", now=NOW, waivers=crowd)
    after = judge(policy, evidence, subject="s", now=NOW, waivers=[*crowd, more])
    assert before.outcome is not Outcome.APPROVED or after.outcome is Outcome.APPROVED
    if objection(more, policy, DIGEST, NOW) is not None:
        assert before == after


@given(cases(), crowds)
def test_waivers_never_approve_what_has_a_defect_an_error_or_a_gap(
    case: tuple[Policy, Evidence], crowd: list[Waiver]
) -> None:
    policy, evidence = case
    verdict = judge(policy, evidence, subject="s", now=NOW, waivers=crowd)
    plain = judge(policy, evidence, subject="s", now=NOW)
    assert verdict.defects == plain.defects
    assert verdict.errors == plain.errors
    gaps = [f.rule for f in plain.findings if f.result is Result.MISSING]
    assert gaps == [f.rule for f in verdict.findings if f.result is Result.MISSING]
