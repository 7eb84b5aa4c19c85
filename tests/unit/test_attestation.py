"""Verdicts as statements: what stands in them, who can read them, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import a_checkpoint, a_verdict, a_version, an_evidence
from google.protobuf.json_format import Parse, ParseDict
from hypothesis import given
from hypothesis import strategies as st
from in_toto_attestation.predicates.vsa.v1.vsa_pb2 import VerificationSummary
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from gate.domain.attestation import (
    EXTENSION,
    MEASUREMENT_TYPE,
    instant,
    measurement_statement,
    read_summary,
    seconds,
    summary_statement,
)
from gate.domain.checkpoint import FileDigest
from gate.domain.errors import InvalidInput
from gate.domain.evidence import canonical_json, digest_json
from gate.domain.verdict import Outcome, Verdict

GOLDEN = Path(__file__).parents[1] / "golden" / "attestations"
ENVELOPE = {"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}
AT, UNTIL = 1_795_000_000, 1_802_776_000


def an_approval(**changes: Any) -> Verdict:
    given_ = {"outcome": Outcome.APPROVED, "reason": "All checks pass", "judged_at": AT, "expires_at": UNTIL}
    fixed = {"evidence_digest": "d" * 64, "policy_digest": "e" * 64, "candidate_digest": a_checkpoint().digest}
    return a_verdict(**(given_ | fixed | changes))


def a_summary(**changes: Any) -> dict[str, Any]:
    return summary_statement(an_approval(**changes), a_checkpoint(), ENVELOPE)


def test_the_summary_is_the_document_on_file() -> None:
    assert a_summary() == json.loads((GOLDEN / "summary.json").read_text())


def test_in_totos_own_library_accepts_both_statements() -> None:
    verdict = an_approval()
    for statement in (a_summary(), measurement_statement(an_evidence(), verdict)):
        message = Parse(canonical_json(statement), StatementMessage())
        Statement.copy_from_pb(message).validate()


def test_the_predicate_is_a_slsa_verification_summary() -> None:
    predicate = a_summary()["predicate"]
    ours = predicate.pop(EXTENSION)
    levels = predicate.pop("verifiedLevels")  # a list by the specification; the library's message has one text
    message = ParseDict(predicate, VerificationSummary())

    assert message.verification_result == "PASSED"
    assert message.resource_uri == a_version().identity
    assert message.time_verified.seconds == AT
    assert message.input_attestations[0].digest["sha256"] == digest_json(ENVELOPE)
    assert levels == ["BASIN_GATE_APPROVED"]
    assert ours["expiresAt"] == instant(UNTIL)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.APPROVED])
def test_whatever_is_not_approved_is_failed(outcome: Outcome) -> None:
    statement = a_summary(outcome=outcome)

    assert statement["predicate"]["verificationResult"] == "FAILED"
    assert statement["predicate"]["verifiedLevels"] == ["FAILED"]
    assert not read_summary(canonical_json(statement)).passed


def test_a_summary_reads_back_as_it_was_written() -> None:
    verdict = an_approval()
    summary = read_summary(canonical_json(summary_statement(verdict, a_checkpoint(), ENVELOPE)))

    assert summary.resource_uri == verdict.subject
    assert (summary.verified_at, summary.expires_at) == (AT, UNTIL)
    assert (summary.policy, summary.policy_digest) == (verdict.policy, verdict.policy_digest)
    assert (summary.verdict_digest, summary.candidate_digest) == (verdict.digest, verdict.candidate_digest)
    assert summary.subjects == {f.path: f.sha256 for f in a_checkpoint().files}


def test_it_approves_its_own_version_until_it_expires_and_no_other() -> None:
    identity = a_version().identity
    summary = read_summary(canonical_json(a_summary()))
    blocked = read_summary(canonical_json(a_summary(outcome=Outcome.BLOCKED, reason="Safety fell")))

    assert summary.refusal(identity, UNTIL - 1) is None
    assert summary.refusal(identity, UNTIL) == f"its approval expired at {instant(UNTIL)}; have it evaluated again"
    assert "for another version" in str(summary.refusal(a_version(created_ms=1).identity, AT))
    assert blocked.refusal(identity, AT) == "blocked by policy default: Safety fell"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("predicateType",), "https://slsa.dev/provenance/v1"),
        (("subject",), []),
        (("subject", 0, "digest", "sha256"), "abc"),
        (("predicate", "verifier", "id"), "https://example.com"),
        (("predicate", "verificationResult"), "passed"),
        (("predicate", "verificationResult"), "FAILED"),
        (("predicate", "resourceUri"), None),
        (("predicate", "timeVerified"), "yesterday"),
        (("predicate", "policy", "uri"), "https://example.com/policies/default"),
        (("predicate", EXTENSION, "expiresAt"), 1_802_776_000),
        (("predicate", EXTENSION, "expiresAt"), "2027-02-30T00:00:00Z"),
        (("predicate", EXTENSION, "outcome"), "fine"),
        (("predicate", EXTENSION, "unheard"), "of"),
    ],
)
def test_a_summary_that_is_not_exactly_ours_is_refused(place: tuple[str | int, ...], value: object) -> None:
    statement: Any = json.loads(canonical_json(a_summary()))
    part = statement
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value

    with pytest.raises(InvalidInput, match="expected"):
        read_summary(canonical_json(statement))


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"{}", b"\xff", b'{"_type": 1}'])
def test_what_is_no_statement_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput, match="verification summary"):
        read_summary(payload)


def test_many_files_are_spoken_of_by_the_digest_over_all() -> None:
    files = tuple(FileDigest(path=f"shard-{i}", sha256=f"{i:064x}", size=1) for i in range(5000))
    candidate = a_checkpoint(files=files)
    statement = summary_statement(an_approval(), candidate, ENVELOPE)

    assert statement["subject"] == [{"name": "5000 files", "digest": {"sha256": candidate.digest}}]


def test_without_files_the_statement_speaks_of_the_evidence() -> None:
    verdict = an_approval(outcome=Outcome.BLOCKED, candidate_digest=None)
    statement = summary_statement(verdict, a_checkpoint(files=()), ENVELOPE)

    assert statement["subject"] == [{"name": "evidence", "digest": {"sha256": verdict.evidence_digest}}]
    assert read_summary(canonical_json(statement)).candidate_digest is None


def test_the_measurement_carries_all_evidence_and_the_verdict() -> None:
    evidence, verdict = an_evidence(), an_approval()
    statement = measurement_statement(evidence, verdict)

    assert statement["predicateType"] == MEASUREMENT_TYPE
    assert digest_json(statement["predicate"]["evidence"]) == evidence.digest
    assert Verdict.model_validate(statement["predicate"]["verdict"]) == verdict


@given(st.text(max_size=3000), st.integers(0, 4_000_000_000))
def test_every_reason_and_time_survives_the_way_through_the_statement(reason: str, at: int) -> None:
    statement = a_summary(reason=reason, judged_at=at, expires_at=at + 1)

    assert seconds(instant(at)) == at
    assert read_summary(canonical_json(statement)).expires_at == at + 1
