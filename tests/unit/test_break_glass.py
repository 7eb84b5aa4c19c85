"""Over which verdicts the glass may be broken, what comes of it, and who may review that."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from approvals import a_key, an_attestation
from builders import a_checkpoint, a_verdict, a_version, an_estimate, an_evidence

from gate.adapters.rulebook import Rulebook
from gate.dispatcher.notices import of_glass, of_overdue_glass
from gate.domain.attestation import EXTENSION, instant, read_summary, summary_statement
from gate.domain.breaking import broken, for_seconds, objection, refuse_late_review
from gate.domain.checkpoint import Checkpoint, Layout
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Defect, DefectCode, Measurement, Name, canonical_json
from gate.domain.glass import BrokenGlass
from gate.domain.judging import judge
from gate.domain.layers import loosened
from gate.domain.policy import BreakGlassTerms, Policy, Rule
from gate.domain.revocation import Revocation
from gate.domain.verdict import Enforcement, Outcome, Review, ReviewDecision, Verdict
from gate.look.breaking import hours_of

NOW = 1_795_000_000
HOUR = 3600
POLICY = Policy(
    name="p",
    rules=(Rule(name="keeps", measurement=Name.RETENTION, capability="safety", at_least=-0.1, reason="keep it"),),
    break_glass=BreakGlassTerms(max_hours=24),
)
NONE = POLICY.model_copy(update={"break_glass": None})
NO_FILES = Checkpoint(layout=Layout.UNKNOWN, files=())


def judged(value: float = -0.5, half_width: float = 0.1, **changes: Any) -> Verdict:
    found = Measurement(name=Name.RETENTION, capability="safety", estimate=an_estimate(value, half_width))
    evidence = an_evidence(**({"measurements": (found,)} | changes))
    return judge(POLICY, evidence, subject="models:/m/1", now=NOW)


def a_defect(code: DefectCode) -> dict[str, Any]:
    return {"defects": (Defect(code=code, message="the files are at fault"),)}


def a_glass(of: Verdict, **changes: Any) -> BrokenGlass:
    stated = {"by": "ana", "reason": "the old one is down", "ticket": "INC-1", "at": NOW, "expires_at": NOW + 4 * HOUR}
    return BrokenGlass.model_validate(stated | {"review_by": NOW + 24 * HOUR, "verdict_digest": of.digest} | changes)


@pytest.mark.parametrize("verdict", [judged(), judged(-0.1, 0.2)], ids=["blocked", "undecided"])
def test_over_a_number_past_its_limit_it_may_be_broken_and_the_approval_says_so_and_is_short(verdict: Verdict) -> None:
    assert verdict.outcome is not Outcome.APPROVED
    assert objection(verdict, POLICY, None, NOW) is None
    after = broken(verdict, a_glass(verdict))
    assert (after.outcome, after.expires_at, after.findings) == (Outcome.APPROVED, NOW + 4 * HOUR, verdict.findings)
    for said in ("by breaking the glass until", "by ana: the old one is down", "INC-1", verdict.reason):
        assert said in after.reason
    assert "break_glass" not in verdict.model_dump(mode="json")


@pytest.mark.parametrize(
    ("verdict", "policy", "why"),
    [
        (judged(), NONE, "does not permit it"),
        (judged(0.0, 0.01), POLICY, "it is approved until"),
        (judged(candidate=NO_FILES), POLICY, "nobody hashed its bytes"),
        (judged(measurements=(), **a_defect(DefectCode.BASE_UNRESOLVED)), POLICY, "nothing was measured of it"),
        (judged(errors=("a worker was lost",)), POLICY, "could not be judged: a worker was lost"),
        (judged(0.0, 0.01, errors=("other bytes",)), POLICY, "could not be judged: other bytes"),
        *((judged(**a_defect(code)), POLICY, "files are at fault") for code in (
            DefectCode.ARTIFACTS_MISSING,
            DefectCode.ARTIFACTS_UNREADABLE,
            DefectCode.BASE_MISMATCH,
            DefectCode.UNSAFE_FILE,
            DefectCode.CUSTOM_CODE,
            DefectCode.ARCHIVE_FILE,
            DefectCode.NON_FINITE_WEIGHTS,
        )),
    ],
)  # fmt: skip
def test_over_anything_else_it_cannot_be_broken(verdict: Verdict, policy: Policy, why: str) -> None:
    assert why in (objection(verdict, policy, None, NOW) or "")


def test_files_that_could_do_something_are_not_let_through_by_a_policy_that_only_reviews_them() -> None:
    lenient = POLICY.model_copy(update={"defects": {DefectCode.UNSAFE_FILE: Enforcement.REVIEW}})
    evidence = an_evidence(**a_defect(DefectCode.UNSAFE_FILE))
    verdict = judge(lenient, evidence, subject="models:/m/1", now=NOW)
    assert verdict.outcome is Outcome.NEEDS_REVIEW
    assert "files are at fault" in (objection(verdict, lenient, None, NOW) or "")


def test_a_revocation_cannot_be_broken() -> None:
    revoked = Revocation(subject="models:/m/1", candidate_digest=None, reason="leaked", revoked_at=NOW - 5)
    assert "a revocation is for good" in (objection(judged(), POLICY, revoked, NOW) or "")


def test_it_lasts_as_long_as_the_policy_says_at_most() -> None:
    short = POLICY.model_copy(update={"break_glass": BreakGlassTerms(max_hours=2)})
    assert (for_seconds(POLICY, None), for_seconds(short, None), for_seconds(POLICY, 24)) == (
        4 * HOUR,
        2 * HOUR,
        24 * HOUR,
    )
    with pytest.raises(InvalidInput, match=r"at most 2 hours, as policy p says, found 2\.5"):
        for_seconds(short, 2.5)


@pytest.mark.parametrize(("text", "hours"), [("90m", 1.5), ("4h", 4.0), ("1d", 24.0)])
def test_a_duration_is_read(text: str, hours: float) -> None:
    assert hours_of(text) == hours


@pytest.mark.parametrize("text", ["", "4", "h", "-1h", "4h30m", "1e9h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="such as 90m, 4h or 1d"):
        hours_of(text)


@pytest.mark.parametrize(("who", "did"), [("ana", "broke the glass"), ("sub", "submitted the version")])
def test_neither_who_broke_it_nor_who_submitted_the_version_reviews_it(who: str, did: str) -> None:
    glass = a_glass(judged())
    stated = {"decision": ReviewDecision.APPROVE, "reason": "right", "decided_at": NOW, "verdict_digest": glass.digest}
    with pytest.raises(InvalidInput, match=f"found {who} who {did}"):
        refuse_late_review(glass, Review(reviewer=who, **stated), {"submitter": "sub"})
    refuse_late_review(glass, Review(reviewer="bo", **stated), {"submitter": "sub"})


def a_statement(**changes: Any) -> dict[str, Any]:
    verdict = judged()
    approved = broken(verdict, a_glass(verdict)).model_copy(update=changes)
    return summary_statement(approved, a_checkpoint(), {"payload": "e30=", "signatures": []})


def test_the_signed_summary_tells_it_from_every_other_approval_and_ends_with_it() -> None:
    statement = a_statement()
    assert statement["predicate"]["verifiedLevels"] == ["BASIN_GATE_BREAK_GLASS"]
    assert statement["predicate"][EXTENSION]["breakGlass"] == {"by": "ana", "ticket": "INC-1"}
    summary = read_summary(canonical_json(statement))
    assert (summary.passed, summary.broken_by) == (True, "ana")
    assert [summary.refusal("models:/m/1", at) is None for at in (NOW + 4 * HOUR - 1, NOW + 4 * HOUR)] == [True, False]


def test_a_summary_that_hides_it_is_not_read() -> None:
    statement = a_statement()
    del statement["predicate"][EXTENSION]["breakGlass"]
    with pytest.raises(InvalidInput, match="BASIN_GATE_BREAK_GLASS"):
        read_summary(canonical_json(statement))


def test_one_that_was_overruled_since_is_signed_as_failed() -> None:
    assert not read_summary(canonical_json(a_statement(outcome=Outcome.BLOCKED))).passed


@pytest.mark.parametrize(
    ("terms", "why"),
    [("", "permits for no time"), ("break_glass: {max_hours: 2}", "at most 2 hours"), ("break_glass: {max_hours: 4}", None)],
)  # fmt: skip
def test_the_guard_asks_its_own_policy_too(tmp_path: Path, terms: str, why: str | None) -> None:
    text = "name: default\nrules:\n- {name: r, measurement: score, capability: a, at_least: 0.5, reason: why}\n"
    (tmp_path / "policy.yaml").write_text(text + terms)
    private, public = a_key(tmp_path)
    rules = Rulebook(
        SimpleNamespace(
            policies=tmp_path / "policy.yaml",
            guard_tag_writers="",
            guard_current_policy_only=False,
            trusted_keys_file=public,
            revocations_file=None,
        )
    )
    version, verdict = a_version(), a_verdict()
    glass = a_glass(verdict)
    given = {"judged_at": NOW, "expires_at": glass.expires_at, "break_glass": glass}
    signed = a_version(tags={"gate.vsa": an_attestation(private, version.identity, **given)})
    refusal = rules.refusal(signed, rules.policies.policies[0], NOW + 1)
    assert refusal is None if why is None else why in (refusal or "")
    assert rules.refusal(signed, rules.policies.policies[0], glass.expires_at) is not None


@pytest.mark.parametrize(
    ("lower", "said"),
    [
        (BreakGlassTerms(max_hours=25), "break_glass.max_hours: expected at most 24, found 25"),
        (BreakGlassTerms(max_hours=24, review_within_hours=48), "review_within_hours: expected at most 24, found 48"),
    ],
)
def test_a_lower_layer_breaks_no_glass_that_the_upper_would_not(lower: BreakGlassTerms, said: str) -> None:
    loose = POLICY.model_copy(update={"break_glass": lower})
    assert [each for each in loosened(POLICY, loose) if said in each]
    assert loosened(NONE, POLICY) == ("break_glass: expected none, found one",)
    assert loosened(POLICY, NONE) == ()


def test_people_are_told_who_why_and_until_when_and_nobody_is_called_by_a_reason() -> None:
    glass = a_glass(judged(), reason="<!channel> @all down")
    told = [of_glass(a_version(), glass, "http://mlflow/run"), of_overdue_glass(a_version(), glass)]
    assert [each.title for each in told] == [
        "The glass was broken over models:/my-llm/3",
        "Nobody reviewed the breaking of the glass over models:/my-llm/3",
    ]
    assert instant(glass.expires_at) in told[0].body
    assert not set("<>@") & set(told[0].body)
    assert told[0].subject != told[1].subject
