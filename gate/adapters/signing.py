"""Ed25519 signatures in DSSE envelopes: the gate signs with a private key, everybody else needs only public ones."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from gate.domain.errors import InvalidInput, Unverified

END_OF_KEY = b"-----END PUBLIC KEY-----"
MAX_ENVELOPE_BYTES = 50_000_000


def generate_key(path: Path) -> bytes:
    """Make an Ed25519 private key in a new file that only its owner can read; the public key's PEM comes back."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput(f"{path}: expected no file there, found one; a key is never overwritten") from error
    except OSError as error:
        raise InvalidInput(f"{path}: expected a writable place, found: {error.strerror}; choose another") from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return _public_pem(private.public_key())


class Opener(Protocol):
    """Opens what was signed: the payload of that type, or ``Unverified``."""

    def open(self, envelope: Mapping[str, Any] | str | bytes, payload_type: str) -> bytes: ...


class Bundler(Protocol):
    """Signs an in-toto statement in a way of its own, into a bundle (a JSON-ready mapping)."""

    def bundle(self, statement: bytes) -> Mapping[str, Any]: ...


class DsseSigner:
    """Signs with the Ed25519 key of a PEM file. Implements ``gate.ports.Signer``.

    ``keyless`` signs beside it where summaries are to be verified without the gate's key too.
    """

    def __init__(self, key_file: Path, keyless: Bundler | None = None) -> None:
        self.keyless = keyless
        private = _private_key(key_file)
        self._signer = CryptoSigner(private)
        self.public_key = private.public_key()
        self.public_pem = _public_pem(private.public_key())

    @property
    def key_id(self) -> str:
        """The key's identifier, as it stands in each envelope."""
        return str(self._signer.public_key.keyid)

    def sign(self, payload: bytes, payload_type: str) -> Mapping[str, Any]:
        """The envelope of a payload; equal payloads give equal envelopes."""
        envelope = Envelope(payload, payload_type, {})
        envelope.sign(self._signer)
        return cast(dict[str, Any], envelope.to_dict())


class Verifier:
    """Opens envelopes that one of the trusted public keys signed; several are trusted while a key is replaced."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = [SSlibKey.from_crypto(key) for key in keys]

    @classmethod
    def from_file(cls, file: Path) -> "Verifier":
        """A verifier that trusts each public key of a PEM file."""
        return cls(public_keys(file))

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The identifiers of the trusted keys."""
        return tuple(str(key.keyid) for key in self._keys)

    def open(self, envelope: Mapping[str, Any] | str | bytes, payload_type: str) -> bytes:
        """The payload of an envelope of this type; ``Unverified`` unless a trusted key signed exactly it."""
        parsed = _parse(envelope)
        if parsed.payload_type != payload_type:
            raise Unverified(f"expected a payload of type {payload_type}, found {parsed.payload_type!r}")
        try:
            parsed.verify(self._keys, threshold=1)
        except (VerificationError, ValueError) as error:
            signed_by = ", ".join(k[:12] for k in parsed.signatures) or "nobody"
            trusted = ", ".join(k[:12] for k in self.key_ids) or "none"
            raise Unverified(
                f"expected a signature by a trusted key ({trusted}), found: signed by {signed_by}, not valid; "
                "add the gate's public key to GATE_TRUSTED_KEYS_FILE or have the version evaluated again"
            ) from error
        return bytes(parsed.payload)


def public_keys(file: Path) -> list[Ed25519PublicKey]:
    """The Ed25519 public keys of a PEM file; at least one, and nothing else in it."""
    content = _read(file, "GATE_TRUSTED_KEYS_FILE")
    blocks = [block + END_OF_KEY for block in content.split(END_OF_KEY)[:-1]]
    rest = content.split(END_OF_KEY)[-1]
    if not blocks or b"-----BEGIN" in rest:
        raise InvalidInput(f"{file}: expected Ed25519 public keys in PEM, found none or something else after them")
    return [_public_key(file, block) for block in blocks]


def _public_key(file: Path, pem: bytes) -> Ed25519PublicKey:
    if b"PRIVATE KEY" in pem:
        raise InvalidInput(f"{file}: expected public keys only, found a private key; keep it with the gate alone")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"{file}: expected Ed25519 public keys in PEM, found one that is damaged: {error}"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput(f"{file}: expected Ed25519 public keys, found {type(key).__name__}")
    return key


def _private_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(file, "GATE_SIGNING_KEY_FILE"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"{file}: expected an unencrypted PEM private key, found something else; make one with basin-gate keys generate"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{file}: expected an Ed25519 private key, found {type(key).__name__}; make a new one")
    return key


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file}: expected a readable key file, found: {error.strerror}; check {setting}") from error


def _parse(envelope: Mapping[str, Any] | str | bytes) -> Envelope:
    """An envelope from JSON; what is not one is ``Unverified``, never a crash."""
    try:
        if isinstance(envelope, Mapping):
            envelope = json.dumps(envelope)
        if len(envelope) > MAX_ENVELOPE_BYTES:
            raise Unverified(f"expected an envelope of at most {MAX_ENVELOPE_BYTES} bytes, found {len(envelope)}")
        return Envelope.from_dict(json.loads(envelope))
    except Unverified:
        raise
    except Exception as error:  # foreign bytes can fail the library in any way; each means: not an envelope
        raise Unverified(f"expected a DSSE envelope, found something else ({type(error).__name__})") from error
