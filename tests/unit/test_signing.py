"""Keys and envelopes: who can sign, who can verify, and what is refused."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from approvals import a_key
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gate.adapters.signing import DsseSigner, Verifier, generate_key, public_keys
from gate.domain.errors import InvalidInput, Unverified

TYPE = "application/vnd.in-toto+json"


@pytest.fixture
def signer(tmp_path: Path) -> DsseSigner:
    return DsseSigner(a_key(tmp_path)[0])


@pytest.fixture
def verifier(tmp_path: Path, signer: DsseSigner) -> Verifier:
    return Verifier.from_file(tmp_path / "gate.pub.pem")


def test_what_was_signed_opens_and_equal_payloads_give_equal_envelopes(signer: DsseSigner, verifier: Verifier) -> None:
    envelope = signer.sign(b"{}", TYPE)

    assert verifier.open(envelope, TYPE) == verifier.open(json.dumps(envelope), TYPE) == b"{}"
    assert signer.sign(b"{}", TYPE) == envelope
    assert envelope["signatures"][0]["keyid"] == signer.key_id == verifier.key_ids[0]


def test_the_signature_is_ed25519_over_dsses_pre_authentication_encoding(signer: DsseSigner) -> None:
    envelope = signer.sign(b"payload", TYPE)
    key = serialization.load_pem_public_key(signer.public_pem)
    encoded = b"DSSEv1 %d %s 7 payload" % (len(TYPE), TYPE.encode())

    assert isinstance(key, Ed25519PublicKey)
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded)
    assert base64.b64decode(envelope["payload"]) == b"payload"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payload", base64.b64encode(b'{"a": 1}').decode()),
        ("payloadType", "text/plain"),
        ("signatures", []),
        ("signatures", [{"keyid": "0" * 64, "sig": base64.b64encode(b"0" * 64).decode()}]),
        ("signatures", [{"keyid": "x", "sig": "?"}]),
        ("signatures", None),
        ("payload", 3),
    ],
)
def test_a_changed_envelope_does_not_open(signer: DsseSigner, verifier: Verifier, field: str, value: Any) -> None:
    envelope = {**signer.sign(b"{}", TYPE), field: value}

    with pytest.raises(Unverified):
        verifier.open(envelope, TYPE)


def test_a_true_signature_over_another_type_of_payload_does_not_open(signer: DsseSigner, verifier: Verifier) -> None:
    with pytest.raises(Unverified, match="expected a payload of type"):
        verifier.open(signer.sign(b"{}", "text/plain"), TYPE)


@pytest.mark.parametrize("text", ["", "approved", "null", "[]", "{}", '"x"', "[" * 100_000])
def test_what_is_no_envelope_is_unverified_and_never_a_crash(verifier: Verifier, text: str) -> None:
    with pytest.raises(Unverified, match="expected a DSSE envelope"):
        verifier.open(text, TYPE)


@given(data=st.binary(max_size=200))
def test_no_bytes_make_the_verifier_crash(data: bytes) -> None:
    with pytest.raises(Unverified):
        Verifier([]).open(data, TYPE)


def test_a_strangers_signature_does_not_open_even_under_our_keys_name(
    tmp_path: Path, signer: DsseSigner, verifier: Verifier
) -> None:
    forged = DsseSigner(a_key(tmp_path, "stranger")[0]).sign(b"{}", TYPE)
    renamed = {**forged, "signatures": [{**forged["signatures"][0], "keyid": signer.key_id}]}

    for envelope in (forged, renamed):
        with pytest.raises(Unverified, match="expected a signature by a trusted key"):
            verifier.open(envelope, TYPE)


def test_while_a_key_is_replaced_both_are_trusted(tmp_path: Path) -> None:
    pairs = [a_key(tmp_path, name) for name in ("old", "new")]
    both = tmp_path / "trusted.pem"
    both.write_bytes(b"# the gate's keys\n" + b"\n".join(public.read_bytes() for _, public in pairs))
    verifier = Verifier.from_file(both)

    assert len(set(verifier.key_ids)) == 2
    assert [verifier.open(DsseSigner(private).sign(b"{}", TYPE), TYPE) for private, _ in pairs] == [b"{}", b"{}"]


def test_a_private_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "gate.pem"
    public = generate_key(file)
    before = file.read_bytes()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert DsseSigner(file).public_pem == public
    with pytest.raises(InvalidInput, match="never overwritten"):
        generate_key(file)
    with pytest.raises(InvalidInput, match="expected a writable place"):
        generate_key(tmp_path / "nowhere" / "gate.pem")
    assert file.read_bytes() == before


def test_a_signer_prints_no_secret(signer: DsseSigner, tmp_path: Path) -> None:
    secret = (tmp_path / "gate.pem").read_text().splitlines()[1]

    assert secret not in f"{signer!r} {vars(signer)!r}"


def pem_of_rsa(*, public: bool) -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    if public:
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_a_key_file_must_hold_what_it_is_for(tmp_path: Path) -> None:
    private, public = a_key(tmp_path)
    file = tmp_path / "file.pem"
    refused = {
        b"": "expected Ed25519 public keys in PEM, found none",
        b"hello": "expected Ed25519 public keys in PEM, found none",
        private.read_bytes(): "found none or something else",
        private.read_bytes() + public.read_bytes(): "found a private key",
        public.read_bytes() + private.read_bytes(): "something else after them",
        public.read_bytes().replace(b"MC", b"XX"): "found one that is damaged",
        pem_of_rsa(public=True): "expected Ed25519 public keys, found",
    }
    for content, message in refused.items():
        file.write_bytes(content)
        with pytest.raises(InvalidInput, match=message):
            public_keys(file)


def test_only_an_ed25519_private_key_signs(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    for content, message in ((b"x", "unencrypted PEM private key"), (pem_of_rsa(public=False), "expected an Ed25519")):
        file.write_bytes(content)
        with pytest.raises(InvalidInput, match=message):
            DsseSigner(file)
    with pytest.raises(InvalidInput, match="check GATE_SIGNING_KEY_FILE"):
        DsseSigner(tmp_path / "absent.pem")
    with pytest.raises(InvalidInput, match="check GATE_TRUSTED_KEYS_FILE"):
        Verifier.from_file(tmp_path / "absent.pem")
