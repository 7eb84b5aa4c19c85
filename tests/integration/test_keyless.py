"""Keyless signatures against a Sigstore instance of the tests' own: real certificates, real logs."""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from approvals import a_key
from builders import a_checkpoint, a_verdict, an_evidence
from cryptography.hazmat.primitives.asymmetric import ec
from sigstore.dsse import Statement
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
from sigstore_stand import IDENTITY, ISSUER, SigstoreStand
from typer.testing import CliRunner

from gate.adapters.folder_digests import folder_digests
from gate.adapters.keyless import KeylessSigner, KeylessVerifier
from gate.bootstrap import build_signer
from gate.cli import app
from gate.domain.attestation import PAYLOAD_TYPE
from gate.domain.errors import InvalidInput, Unavailable, Unverified
from gate.domain.evidence import canonical_json
from gate.domain.verdict import Outcome
from gate.settings import Settings
from tasks.judge import signed

STATEMENT = canonical_json(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "a", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://tests.example/v1",
        "predicate": {},
    }
)


@pytest.fixture
def stand() -> Iterator[SigstoreStand]:
    stand = SigstoreStand()
    yield stand
    stand.close()


@pytest.fixture
def token(stand: SigstoreStand, tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(stand.token() + "\n")
    return file


@pytest.fixture
def signer(stand: SigstoreStand, token: Path, tmp_path: Path) -> KeylessSigner:
    return KeylessSigner(str(stand.trust_file(tmp_path)), token)


def verifier(stand: SigstoreStand, folder: Path, identity: str = IDENTITY, issuer: str = ISSUER) -> KeylessVerifier:
    return KeylessVerifier.of(str(stand.trust_file(folder)), identity, issuer)


def test_what_was_signed_is_opened_by_identity_and_issuer_alone(stand, signer, tmp_path):
    for _ in range(3):
        bundle = signer.bundle(STATEMENT)
        assert verifier(stand, tmp_path).open(bundle, PAYLOAD_TYPE) == STATEMENT
    assert verifier(stand, tmp_path).open(json.dumps(bundle), PAYLOAD_TYPE) == STATEMENT


def test_a_trusted_root_alone_is_enough_to_verify(stand, signer, tmp_path):
    root = tmp_path / "root.json"
    root.write_text(json.dumps(stand.trust()["trustedRoot"]))
    assert KeylessVerifier.of(str(root), IDENTITY, ISSUER).open(signer.bundle(STATEMENT), PAYLOAD_TYPE) == STATEMENT


@pytest.mark.parametrize(
    ("identity", "issuer"), [("https://kubernetes.example/somebody", ISSUER), (IDENTITY, "https://elsewhere.example")]
)
def test_another_identity_or_issuer_is_refused(stand, signer, tmp_path, identity, issuer):
    with pytest.raises(Unverified, match="expected a Sigstore bundle signed by"):
        verifier(stand, tmp_path, identity, issuer).open(signer.bundle(STATEMENT), PAYLOAD_TYPE)


@pytest.mark.parametrize("log", ["certificates", "log"])
def test_a_log_that_is_not_trusted_is_refused(stand, signer, tmp_path, log):
    other = stand.trust_file(tmp_path, **{log: ec.generate_private_key(ec.SECP256R1())})
    with pytest.raises(Unverified):
        KeylessVerifier.of(str(other), IDENTITY, ISSUER).open(signer.bundle(STATEMENT), PAYLOAD_TYPE)


def another_payload(bundle: dict[str, Any]) -> None:
    changed = STATEMENT.replace(b'"name":"a"', b'"name":"b"')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()


def another_time(bundle: dict[str, Any]) -> None:
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)


def no_proof(bundle: dict[str, Any]) -> None:
    del bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]


def another_root(bundle: dict[str, Any]) -> None:
    proof = bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["rootHash"] = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize("change", [another_payload, another_time, no_proof, another_root])
def test_a_bundle_that_was_changed_is_refused(
    stand: SigstoreStand, signer: KeylessSigner, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    bundle = dict(signer.bundle(STATEMENT))
    change(bundle)
    with pytest.raises(Unverified):
        verifier(stand, tmp_path).open(bundle, PAYLOAD_TYPE)


@pytest.mark.parametrize("given", [b"", b"{", b"[]", b"{}", b"\xff", b'{"mediaType": "text/plain"}'])
def test_what_is_no_bundle_is_refused(stand, tmp_path, given):
    with pytest.raises(Unverified):
        verifier(stand, tmp_path).open(given, PAYLOAD_TYPE)


def test_another_type_of_payload_is_refused(stand, signer, tmp_path):
    with pytest.raises(Unverified, match="expected a payload of type text/plain"):
        verifier(stand, tmp_path).open(signer.bundle(STATEMENT), "text/plain")


def test_a_log_that_saw_it_after_the_certificate_ended_is_no_signature(stand, signer):
    stand.lifetime, stand.later = timedelta(minutes=1), 120
    with pytest.raises(Unavailable, match="expected a keyless signature"):
        signer.bundle(STATEMENT)


def test_an_instance_that_does_not_serve_is_no_signature(stand, signer):
    stand.refusing = True
    with pytest.raises(Unavailable):
        signer.bundle(STATEMENT)
    stand.refusing = False
    assert signer.bundle(STATEMENT)


def test_a_bundle_that_the_log_saw_after_the_certificate_ended_is_refused(stand, token, tmp_path):
    stand.lifetime, stand.later = timedelta(minutes=1), 120
    context = SigningContext.from_trust_config(ClientTrustConfig.from_json(json.dumps(stand.trust())))
    with context.signer(IdentityToken(token.read_text().strip())) as unchecked:
        bundle = unchecked.sign_dsse(Statement(STATEMENT)).to_json()
    with pytest.raises(Unverified):
        verifier(stand, tmp_path).open(bundle, PAYLOAD_TYPE)


def test_an_instance_that_never_answers_is_given_up(stand, token, tmp_path):
    stand.hanging.clear()
    signer = KeylessSigner(str(stand.trust_file(tmp_path)), token, limit_s=0.5)
    with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
        signer.bundle(STATEMENT)


def test_what_signs_no_verdict_does_without_a_token(settings):
    signer = build_signer(settings.model_copy(update={"sigstore_token_file": None}))
    assert signer.sign(b"a revocation", "text/plain")


@pytest.mark.parametrize("content", [None, "", "no token", "expired"])
def test_without_a_token_in_force_there_is_no_signature_and_the_token_is_not_told(stand, signer, token, content):
    token.unlink()
    if content is not None:
        token.write_text(stand.token(ends_in_s=-60) if content == "expired" else content)
    with pytest.raises(Unavailable) as refused:
        signer.bundle(STATEMENT)
    assert "GATE_SIGSTORE" in str(refused.value)
    assert stand.token().split(".")[0] not in str(refused.value)


def test_a_token_is_read_anew_for_each_signature(stand, signer, token, tmp_path):
    signer.bundle(STATEMENT)
    token.write_text(stand.token("https://kubernetes.example/another"))
    found = verifier(stand, tmp_path, "https://kubernetes.example/another").open(signer.bundle(STATEMENT), PAYLOAD_TYPE)
    assert found == STATEMENT


def test_settings_that_cannot_work_say_what_they_lack(tmp_path, token, monkeypatch):
    with pytest.raises(InvalidInput, match="GATE_SIGSTORE_TOKEN_FILE"):
        KeylessSigner("production", None).bundle(STATEMENT)
    for trust in (tmp_path / "none.json", token):
        with pytest.raises(InvalidInput, match="client trust configuration"):
            KeylessSigner(str(trust), token).bundle(STATEMENT)
        with pytest.raises(InvalidInput, match="trusted root"):
            KeylessVerifier.of(str(trust), IDENTITY, ISSUER)
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    with pytest.raises(InvalidInput, match=r"basin-gate\[sigstore\]"):
        KeylessSigner("production", token).bundle(STATEMENT)


def test_an_identity_must_be_named(stand, tmp_path):
    with pytest.raises(InvalidInput, match="anybody could have signed"):
        verifier(stand, tmp_path, identity=" ")


class Approved:
    """A folder of files, approved by a gate that signs without a key as well."""

    def __init__(self, room: Path, settings: Settings) -> None:
        self.folder, self.bundle = room / "files", room / "sigstore.json"
        self.folder.mkdir()
        (self.folder / "config.json").write_text("{}")
        candidate = a_checkpoint(files=folder_digests(self.folder))
        evidence = an_evidence(candidate=candidate)
        verdict = a_verdict(
            evidence, subject="models:/m/1?made=1&source=s", outcome=Outcome.APPROVED, candidate_digest=candidate.digest
        ).model_copy(update={"expires_at": 4_000_000_000})
        self.envelopes = signed(build_signer(settings), evidence, verdict)
        self.bundle.write_bytes(canonical_json(self.envelopes["sigstore"]))

    def verify(self, trust: Path, *more: str) -> tuple[int, str]:
        asked = ["--bundle", str(self.bundle), "--identity", IDENTITY, "--issuer", ISSUER, "--trust", str(trust), *more]
        ran = CliRunner().invoke(app, ["verify-keyless", str(self.folder), *asked])
        return ran.exit_code, ran.output


@pytest.fixture
def settings(stand: SigstoreStand, token: Path, tmp_path: Path) -> Settings:
    trust = str(stand.trust_file(tmp_path))
    return Settings(signing_key_file=a_key(tmp_path)[0], sigstore=trust, sigstore_token_file=token)


def test_files_are_verified_without_the_gates_key_until_one_changes(stand, settings, tmp_path):
    approved, trust = Approved(tmp_path, settings), stand.trust_file(tmp_path)
    assert approved.verify(trust)[0] == 0
    status, told = approved.verify(trust, "--json")
    assert (status, json.loads(told)["verified"]) == (0, True)
    status, told = approved.verify(trust, "--expect", "models:/m/2")
    assert (status, "expected an attestation of" in told) == (1, True)
    (approved.folder / "config.json").write_text("[]")
    status, told = approved.verify(trust)
    assert (status, "config.json was changed since it was judged" in told) == (1, True)


def test_the_ed25519_envelopes_are_the_same_with_and_without_a_bundle(settings):
    evidence = an_evidence()
    with_bundle = signed(build_signer(settings), evidence, a_verdict(evidence))
    without = signed(build_signer(settings.model_copy(update={"sigstore": ""})), evidence, a_verdict(evidence))
    assert {name: with_bundle[name] for name in without} == without
    assert set(with_bundle) - set(without) == {"sigstore"}


def test_a_verdict_that_cannot_be_signed_as_asked_is_not_signed_at_all(stand, settings):
    stand.refusing = True
    evidence = an_evidence()
    with pytest.raises(Unavailable):
        signed(build_signer(settings), evidence, a_verdict(evidence))
