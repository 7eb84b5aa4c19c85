"""Revocations as documents: what stands in a list, what it speaks of, when it is too old, what is refused."""

import json
from pathlib import Path

import pytest
from approvals import a_key, an_attestation
from builders import a_verdict

from gate.adapters.revocations import UNREADABLE_MARK, KnownRevocations, listed, marked, opened
from gate.adapters.signing import DsseSigner, Verifier
from gate.domain.attestation import PAYLOAD_TYPE
from gate.domain.errors import InvalidInput, Unverified
from gate.domain.revocation import (
    REVOCATIONS_TYPE,
    Revocation,
    RevocationList,
    overruled,
    read_revocations,
    revocation_list,
)
from gate.domain.verdict import Outcome

GOLDEN = Path(__file__).parents[1] / "golden" / "attestations" / "revocations.json"
AT, ONE, TWO = 1_795_000_000, "models:/a/1?created=1&source=s", "models:/b/2?created=2&source=s"


def an_entry(subject: str = ONE, digest: str | None = "1" * 64) -> Revocation:
    return Revocation(subject=subject, candidate_digest=digest, reason="a broken suite", revoked_at=AT)


def test_the_list_is_the_document_on_file() -> None:
    payload = revocation_list([an_entry(TWO, None), an_entry()], AT, AT + 86_400)

    assert json.loads(payload) == json.loads(GOLDEN.read_text())


def test_a_list_reads_back_as_it_was_written() -> None:
    entries = (an_entry(), an_entry(TWO, None))

    assert read_revocations(revocation_list(entries, AT)) == RevocationList(issued_at=AT, entries=entries)


def test_it_speaks_of_the_version_and_of_the_same_bytes_under_any_name_and_of_nothing_else() -> None:
    known = RevocationList(issued_at=AT, entries=(an_entry(), an_entry(TWO, None)))

    assert known.of(ONE, None) == known.of("other", "1" * 64) == an_entry()
    assert known.of(TWO, "2" * 64) == an_entry(TWO, None)
    assert known.of("other", "2" * 64) is None
    assert known.of("other", None) is None


def test_a_list_that_is_too_old_refuses_everything() -> None:
    known = KnownRevocations(RevocationList(issued_at=AT, expires_at=AT + 10, entries=()))

    assert known.refusal(ONE, None, AT + 9) is None
    assert "expected a list of revocations in force" in (known.refusal(ONE, None, AT + 10) or "")


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"format": "https://basin-gate.dev/revocations/v2"}'])
def test_what_is_no_list_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected a list of revocations"):
        read_revocations(payload)


def test_neither_kind_of_envelope_passes_for_the_other(tmp_path: Path) -> None:
    private, public = a_key(tmp_path)
    verifier, envelope = Verifier.from_file(public), DsseSigner(private).sign(revocation_list([], AT), REVOCATIONS_TYPE)

    with pytest.raises(Unverified, match="expected a payload of type"):
        opened(verifier, an_attestation(private, ONE))
    with pytest.raises(Unverified, match="expected a payload of type"):
        verifier.open(envelope, PAYLOAD_TYPE)


def test_a_mark_refuses_its_own_version_and_an_unreadable_one_refuses_too(tmp_path: Path) -> None:
    (private, public), (stranger, _) = a_key(tmp_path), a_key(tmp_path, "stranger")
    verifier = Verifier.from_file(public)
    mark = json.dumps(DsseSigner(private).sign(revocation_list([an_entry(digest=None)], AT), REVOCATIONS_TYPE))
    forged = json.dumps(DsseSigner(stranger).sign(revocation_list([an_entry()], AT), REVOCATIONS_TYPE))

    assert "a broken suite" in (marked(verifier, mark, ONE, None) or "")
    assert marked(verifier, mark, TWO, None) is None
    assert marked(verifier, None, ONE, None) is None
    assert marked(verifier, forged, ONE, None) == marked(verifier, "x", ONE, None) == UNREADABLE_MARK


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_file_without_a_list_is_refused_by_its_name(tmp_path: Path, content: bytes | None) -> None:
    _, public = a_key(tmp_path)
    file = tmp_path / "revocations.json"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises((InvalidInput, Unverified), match=r"revocations\.json: expected"):
        listed(Verifier.from_file(public), file)


def test_judging_again_approves_nothing_revoked() -> None:
    approved = a_verdict(outcome=Outcome.APPROVED, reason="All checks pass")

    assert overruled(approved, None) == approved
    blocked = overruled(approved, an_entry())
    assert (blocked.outcome, blocked.reason) == (Outcome.BLOCKED, "Revoked at 2026-11-18T11:06:40Z: a broken suite")
