"""What a person may decide, and what that makes of a verdict."""

import pytest
from builders import a_verdict, an_estimate, an_evidence
from hypothesis import given
from hypothesis import strategies as st

from gate.domain.errors import InvalidInput
from gate.domain.evidence import Defect, DefectCode, Evidence, Measurement, Name, PairedOutcomes
from gate.domain.judging import judge
from gate.domain.policy import Policy, Rule
from gate.domain.review import no_samples, objection, refuse_review, refuse_samples, reviewed, submitter_of
from gate.domain.verdict import Outcome, Review, ReviewDecision, Verdict

AT = 1_795_000_000
POLICY = Policy(
    name="p",
    rules=(Rule(name="keeps", measurement=Name.RETENTION, capability="*", at_least="margin", reason="keep it"),),
)


def judged(value: float, half_width: float, **changes: object) -> Verdict:
    found = Measurement(name=Name.RETENTION, capability="safety", estimate=an_estimate(value, half_width))
    evidence = an_evidence(capabilities=("safety",), margins={"safety": 0.1}, measurements=(found,), **changes)
    return judge(POLICY, evidence, subject="models:/m/1", now=AT)


def a_review(verdict: Verdict, **changes: object) -> Review:
    stated = {"decision": "approve", "reviewer": "ana", "reason": "read 40 answers", "decided_at": AT + 5}
    return Review.model_validate(stated | {"verdict_digest": verdict.digest} | changes)


def test_an_approval_names_who_and_why_and_keeps_what_was_found() -> None:
    verdict = judged(-0.05, 0.2)
    after = reviewed(verdict, a_review(verdict))

    assert (verdict.outcome, after.outcome) == (Outcome.NEEDS_REVIEW, Outcome.APPROVED)
    assert after.reason.startswith("Approved on review by ana: read 40 answers (what asked for it: Safety")
    assert (after.findings, after.expires_at, after.evidence_digest) == (
        verdict.findings,
        verdict.expires_at,
        verdict.evidence_digest,
    )
    assert after.digest != verdict.digest


def test_a_rejection_blocks() -> None:
    verdict = judged(-0.05, 0.2)
    assert reviewed(verdict, a_review(verdict, decision="reject")).outcome is Outcome.BLOCKED


def test_a_verdict_without_a_review_has_the_digest_it_always_had() -> None:
    assert "review" not in a_verdict().model_dump(mode="json")


@pytest.mark.parametrize(
    ("verdict", "found"),
    [
        (judged(-0.5, 0.1), "this one is blocked"),
        (judged(0.0, 0.01), "this one is approved"),
        (judged(0.0, 0.01, errors=("a worker was lost",)), "this one is error"),
    ],
    ids=["blocked", "approved", "error"],
)
def test_only_what_needs_review_is_reviewed(verdict: Verdict, found: str) -> None:
    for decision in ReviewDecision:
        assert found in (objection(verdict, decision) or "")
        with pytest.raises(InvalidInput, match=found):
            refuse_review(verdict, a_review(verdict, decision=decision), {})


def test_what_nothing_was_measured_of_is_never_approved_and_may_be_rejected() -> None:
    unresolved = Defect(code=DefectCode.BASE_UNRESOLVED, message="no base")
    evidence = an_evidence(measurements=(), defects=(unresolved,), base_digest=None)
    verdict = judge(POLICY, evidence, subject="models:/m/1", now=AT)

    assert verdict.outcome is Outcome.NEEDS_REVIEW
    with pytest.raises(InvalidInput, match="nothing was measured"):
        refuse_review(verdict, a_review(verdict), {})
    refuse_review(verdict, a_review(verdict, decision="reject"), {})


def test_a_review_of_another_verdict_decides_nothing() -> None:
    verdict, other = judged(-0.05, 0.2), judged(-0.04, 0.2)
    with pytest.raises(InvalidInput, match="judged again since"):
        refuse_review(verdict, a_review(other), {})


def test_a_second_review_is_refused() -> None:
    verdict = judged(-0.05, 0.2)
    after = reviewed(verdict, a_review(verdict))
    with pytest.raises(InvalidInput, match="reviewed already, by ana"):
        refuse_review(after, a_review(after, reviewer="bo"), {})


@pytest.mark.parametrize("tag", ["submitter", "mlflow.user"])
def test_nobody_reviews_what_they_submitted(tag: str) -> None:
    verdict = judged(-0.05, 0.2)
    with pytest.raises(InvalidInput, match="did not submit the version, found ana for both"):
        refuse_review(verdict, a_review(verdict), {tag: "ana"})
    refuse_review(verdict, a_review(verdict), {tag: "bo"})


def test_the_tag_that_says_so_on_purpose_goes_before_the_one_of_mlflow() -> None:
    assert submitter_of({"mlflow.user": "robot", "submitter": "ana"}) == "ana"
    assert submitter_of({"submitter": ""}) is None


@given(
    value=st.floats(-1, 1),
    half_width=st.floats(0, 2),
    errors=st.sampled_from([(), ("lost",)]),
    decision=st.sampled_from([ReviewDecision.APPROVE, ReviewDecision.REJECT]),
)
def test_a_review_that_is_let_through_starts_from_a_doubt_and_never_from_a_failure(
    value: float, half_width: float, errors: tuple[str, ...], decision: ReviewDecision
) -> None:
    verdict = judged(value, half_width, errors=errors)
    review = a_review(verdict, decision=decision)
    try:
        refuse_review(verdict, review, {})
    except InvalidInput:
        assert verdict.outcome is not Outcome.NEEDS_REVIEW
    else:
        assert verdict.outcome is Outcome.NEEDS_REVIEW
        assert not verdict.errors
        assert (reviewed(verdict, review).outcome is Outcome.APPROVED) == (decision is ReviewDecision.APPROVE)


def compared(value: float, half_width: float, *kept: PairedOutcomes) -> Evidence:
    found = Measurement(name=Name.RETENTION, capability="safety", estimate=an_estimate(value, half_width))
    stated = {"capabilities": ("safety",), "margins": {"safety": 0.1}, "measurements": (found,)}
    return an_evidence(**stated, paired_outcomes=kept)


def test_more_samples_are_asked_for_where_items_were_kept_back() -> None:
    verdict = judged(-0.05, 0.2)
    refuse_review(verdict, a_review(verdict, decision="more_samples", items=8), {})
    assert no_samples(compared(-0.05, 0.2, PairedOutcomes(capability="safety", outcomes=(1.0, 0.0), of=6))) is None


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        (None, "its evidence is not kept"),
        (compared(-0.05, 0.2), r"all were compared of what is undecided \(safety \d+\); add items to the suite"),
        (compared(0.0, 0.01), "every capability that was compared is decided"),
        (compared(-0.5, 0.1), "every capability that was compared is decided"),
    ],
    ids=["no evidence", "all used", "retained", "lost"],
)
def test_without_a_reserve_no_more_samples_are_promised(evidence: Evidence | None, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        refuse_samples(evidence)


def test_of_what_nothing_was_measured_of_there_are_no_more_samples() -> None:
    unresolved = Defect(code=DefectCode.BASE_UNRESOLVED, message="no base")
    evidence = an_evidence(measurements=(), defects=(unresolved,), base_digest=None)
    verdict = judge(POLICY, evidence, subject="models:/m/1", now=AT)
    with pytest.raises(InvalidInput, match="no comparison to go on with; name its base"):
        refuse_review(verdict, a_review(verdict, decision="more_samples"), {})


def test_asking_for_more_samples_decides_nothing_by_itself() -> None:
    verdict = judged(-0.05, 0.2)
    with pytest.raises(InvalidInput, match="expected a decision to approve or to reject"):
        reviewed(verdict, a_review(verdict, decision="more_samples"))


def test_what_nobody_asked_more_samples_of_has_the_documents_it_always_had() -> None:
    assert "samples_asked" not in a_verdict().model_dump(mode="json")
    assert "items" not in a_review(a_verdict()).model_dump(mode="json")
    evidence = compared(-0.05, 0.2).model_dump(mode="json")
    assert "paired_outcomes" not in evidence
    assert "retention_items" not in evidence["plan"]
