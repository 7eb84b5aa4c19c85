"""What a waiver lets, and everything that it does not."""

from typing import Any

import pytest
from builders import a_checkpoint, an_estimate, an_evidence

from gate.domain.errors import InvalidInput
from gate.domain.evidence import Defect, DefectCode, Evidence, Measurement, Name
from gate.domain.judging import judge
from gate.domain.layers import loosened
from gate.domain.permission import Decision, against, answer
from gate.domain.policy import Policy, Rule, WaiverTerms
from gate.domain.verdict import Enforcement, Outcome, Result, Verdict
from gate.domain.waiver import Approval, Waiver, read_waiver, waiver_document
from gate.domain.waiving import objection, refuse_approval, refuse_request, rule_of

NOW = 1_795_000_000
DAY = 86_400
POLICY = Policy(
    name="p",
    rules=(
        Rule(name="keeps", measurement=Name.RETENTION, capability="*", at_least=-0.1, reason="keep it"),
        Rule(name="near", measurement=Name.DISPLACEMENT_NORM, at_most=1, reason="stay near", critical=True),
    ),
    waivers=WaiverTerms(max_days=30),
)
EVIDENCE = an_evidence()


def retaining(value: float, half_width: float = 0.0, **changes: Any) -> Evidence:
    kept = [m for m in EVIDENCE.measurements if (m.name, m.capability) != (Name.RETENTION, "math")]
    lost = Measurement(name=Name.RETENTION, capability="math", estimate=an_estimate(value, half_width))
    return an_evidence(measurements=(*kept, lost), **changes)


def a_waiver(*approvers: str, **changes: Any) -> Waiver:
    given = {
        "candidate_digest": EVIDENCE.candidate.digest,
        "policy": "p",
        "rule": "keeps",
        "owner": "nlp",
        "reason": "math is not asked of it",
        "ticket": "RISK-7",
        "requested_by": "sub",
        "requested_at": NOW - DAY,
        "expires_at": NOW + 10 * DAY,
        "approvals": tuple(Approval(approver=name, at=NOW) for name in sorted(approvers)),
    }
    return Waiver.model_validate(given | changes)


def judged(evidence: Evidence, *waivers: Waiver, policy: Policy = POLICY, now: int = NOW) -> Verdict:
    return judge(policy, evidence, subject="models:/m/1", now=now, waivers=waivers)


@pytest.mark.parametrize("evidence", [retaining(-0.5), retaining(-0.1, 0.2)], ids=["failed", "undecided"])
def test_a_waived_rule_holds_nothing_back_and_the_verdict_says_so_and_ends_with_the_waiver(evidence: Evidence) -> None:
    waiver = a_waiver("ana")
    before, after = judged(evidence), judged(evidence, waiver)

    assert before.outcome is not Outcome.APPROVED
    assert (after.outcome, after.expires_at, after.waivers) == (Outcome.APPROVED, waiver.expires_at, (waiver,))
    waived = [f for f in after.findings if f.result is Result.WAIVED]
    assert [(f.rule, f.capability, f.waiver) for f in waived] == [("keeps", "math", waiver.id)]
    assert "Approved by waiver" in after.reason
    assert waiver.id[:12] in after.reason
    assert "RISK-7" in after.reason
    assert list(against(after)) == []


def test_an_approval_by_waiver_allows_until_the_waiver_ends_and_not_a_second_longer() -> None:
    waiver = a_waiver("ana")
    verdict = judged(retaining(-0.5), waiver)
    allowed = [answer(POLICY, "done", None, verdict, at).decision for at in (waiver.expires_at - 1, waiver.expires_at)]
    assert allowed == [Decision.ALLOWED, Decision.DENIED]


def test_a_waiver_longer_than_the_policys_validity_does_not_lengthen_it() -> None:
    short = POLICY.model_copy(update={"validity_days": 3})
    assert judged(retaining(-0.5), a_waiver("ana"), policy=short).expires_at == NOW + 3 * DAY


@pytest.mark.parametrize(
    "waiver",
    [
        a_waiver(),
        a_waiver("sub"),
        a_waiver("ana", candidate_digest="f" * 64),
        a_waiver("ana", policy="q"),
        a_waiver("ana", rule="near"),
        a_waiver("ana", rule="gone"),
        a_waiver("ana", expires_at=NOW),
        a_waiver("ana", expires_at=NOW + 30 * DAY),
    ],
    ids=["nobody", "only-who-asked", "other-bytes", "other-policy", "other-rule", "no-rule", "over", "too-long"],
)
def test_what_is_no_waiver_of_this_changes_nothing(waiver: Waiver) -> None:
    evidence = retaining(-0.5)
    assert judged(evidence, waiver) == judged(evidence)


def test_a_policy_that_grants_none_knows_none() -> None:
    strict = POLICY.model_copy(update={"waivers": None})
    assert judged(retaining(-0.5), a_waiver("ana"), policy=strict).outcome is Outcome.BLOCKED


def test_a_critical_rule_takes_two_people_one_of_whom_may_have_asked() -> None:
    far = an_evidence(
        measurements=tuple(
            Measurement(name=m.name, estimate=an_estimate(5)) if m.name is Name.DISPLACEMENT_NORM else m
            for m in EVIDENCE.measurements
        )
    )
    by = {
        names: judged(far, a_waiver(*names, rule="near")).outcome for names in (("ana",), ("ana", "bo"), ("ana", "sub"))
    }
    assert by == {("ana",): "blocked", ("ana", "bo"): "approved", ("ana", "sub"): "approved"}


@pytest.mark.parametrize(
    "evidence",
    [
        retaining(-0.5, defects=(Defect(code=DefectCode.UNSAFE_FILE, message="a pickle"),)),
        retaining(-0.5, defects=(Defect(code=DefectCode.CUSTOM_CODE, message="code"),)),
        retaining(-0.5, defects=(Defect(code=DefectCode.NON_FINITE_WEIGHTS, message="nan"),)),
        retaining(-0.5, errors=("inspect failed",)),
        an_evidence(measurements=()),
        retaining(-0.5, candidate=a_checkpoint(files=())),
    ],
    ids=["unsafe", "code", "nan", "error", "unmeasured", "no-bytes"],
)
def test_defects_errors_and_what_was_not_measured_are_never_waived(evidence: Evidence) -> None:
    digest = evidence.candidate.digest
    waivers = [a_waiver("ana", "bo", rule=rule.name, candidate_digest=digest) for rule in POLICY.rules]
    assert judged(evidence, *waivers).outcome is not Outcome.APPROVED


def test_a_request_must_be_for_a_rule_that_holds_back_by_a_number_and_not_longer_than_the_policy_says() -> None:
    findings = judged(retaining(-0.5)).findings
    refuse_request(a_waiver(), POLICY, findings)
    for wrong, why in (
        (a_waiver(rule="near"), "found: pass"),
        (a_waiver(rule="unsafe_file"), "defects of the files cannot be waived"),
        (a_waiver(expires_at=NOW + 30 * DAY), "at most 30 days"),
    ):
        with pytest.raises(InvalidInput, match=why):
            refuse_request(wrong, POLICY, findings)
    with pytest.raises(InvalidInput, match="grants no waivers"):
        refuse_request(a_waiver(), POLICY.model_copy(update={"waivers": None}), findings)
    with pytest.raises(InvalidInput, match="not measured"):
        refuse_request(a_waiver(), POLICY, judged(an_evidence(measurements=())).findings)


def test_nobody_approves_twice_or_too_late() -> None:
    with pytest.raises(InvalidInput, match="another approver"):
        refuse_approval(a_waiver("ana"), Approval(approver="ana", at=NOW), NOW)
    with pytest.raises(InvalidInput, match="not expired"):
        refuse_approval(a_waiver(), Approval(approver="ana", at=NOW), NOW + 10 * DAY)


def test_the_signed_document_reads_back_and_anything_else_is_refused() -> None:
    waiver = a_waiver("bo", "ana")
    assert read_waiver(waiver_document(waiver)) == waiver
    for spoilt in (b"{}", b"[]", waiver_document(waiver).replace(b'"rule"', b'"rules"')):
        with pytest.raises(InvalidInput, match="expected a waiver of Basin Gate"):
            read_waiver(spoilt)


def test_approvals_do_not_change_what_was_asked_for() -> None:
    assert a_waiver().id == a_waiver("ana", "bo").id != a_waiver(rule="near").id


def test_a_verdict_without_waivers_has_the_digest_it_always_had() -> None:
    plain = judged(EVIDENCE).model_dump(mode="json")
    assert "waivers" not in plain
    assert not any("waiver" in finding for finding in plain["findings"])
    assert "waivers" not in POLICY.model_copy(update={"waivers": None}).model_dump(mode="json")


def test_a_lower_layer_grants_no_more_waivers_than_the_one_above() -> None:
    none, shorter = (POLICY.model_copy(update={"waivers": w}) for w in (None, WaiverTerms(max_days=5)))
    assert (loosened(POLICY, none), loosened(POLICY, shorter)) == ((), ())
    assert loosened(none, shorter) == ("waivers.max_days: expected none, found 5",)
    assert loosened(shorter, POLICY) == ("waivers.max_days: expected at most 5, found 30",)


def test_every_reason_for_not_counting_is_said() -> None:
    digest = EVIDENCE.candidate.digest
    critical = rule_of(POLICY, "near")
    assert critical.enforcement is Enforcement.BLOCK
    assert objection(a_waiver("ana"), POLICY, digest, NOW) is None
    assert objection(a_waiver("ana", rule="near"), POLICY, digest, NOW) == "two different people have to approve it"
