"""Signatures without a key of one's own (Sigstore): made with a workload's identity, logged where everybody can look.

A bundle stands beside the Ed25519 envelopes and proves the same statement to readers who do not have the gate's key: which
identity signed, and that a public log saw it while the certificate was valid. The guard does not read it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from gate.domain.errors import InvalidInput, Unavailable, Unverified

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot

INSTANCES = ("production", "staging")
MAX_BUNDLE_BYTES = 50_000_000
LIMIT_S = 120.0
"""How long a signature may take: three requests of seconds each, usually."""


class KeylessSigner:
    """Signs with the identity of a token. Implements ``gate.adapters.signing.Bundler``.

    ``trust`` is `production` or `staging` of the public instance, or a file with a client trust configuration. The token is read
    for each signature: a projected one is replaced while the process runs.
    """

    def __init__(self, trust: str, token_file: Path | None, limit_s: float = LIMIT_S) -> None:
        self._trust, self._token_file, self._limit_s = trust, token_file, limit_s

    def bundle(self, statement: bytes) -> Mapping[str, Any]:
        """The bundle of an in-toto statement, verified as a reader would before anybody relies on it.

        Raises `Unavailable` where the token, the authority or the log does not serve in time: nothing is signed then.
        """
        token = self._token()
        found = _within(self._limit_s, lambda: _signed(_trust_config(self._trust), token, statement))
        if isinstance(found, InvalidInput):
            raise found
        if isinstance(found, BaseException):
            raise Unavailable(
                f"expected a keyless signature, found: {_said(found)}; check GATE_SIGSTORE, the token in "
                f"{self._token_file}, and that its certificate authority and log answer"
            ) from found
        return found

    def _token(self) -> str:
        if self._token_file is None:
            raise InvalidInput("expected GATE_SIGSTORE_TOKEN_FILE where GATE_SIGSTORE is set, found none")
        try:
            return self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            found = getattr(error, "strerror", None) or "something that is not text"
            raise Unavailable(
                f"{self._token_file}: expected an identity token (GATE_SIGSTORE_TOKEN_FILE), found: {found}"
            ) from error


def _signed(trust: "ClientTrustConfig", token: str, statement: bytes) -> Mapping[str, Any]:
    from sigstore.dsse import Statement
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext
    from sigstore.verify import Verifier

    with SigningContext.from_trust_config(trust).signer(IdentityToken(token)) as signer:
        bundle = signer.sign_dsse(Statement(statement))
    Verifier(trusted_root=trust.trusted_root).verify_dsse(bundle, _Whoever())
    found: dict[str, Any] = json.loads(bundle.to_json())
    return found


def _within(limit_s: float, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | BaseException:
    """What the work gave or raised. Its own thread, since the library waits for its services for ever."""
    ended: SimpleQueue[Mapping[str, Any] | BaseException] = SimpleQueue()

    def run() -> None:
        try:
            ended.put(work())
        except Exception as error:  # a foreign service can fail the library in any way; each means: not signed
            ended.put(error)

    Thread(target=run, daemon=True).start()
    try:
        return ended.get(timeout=limit_s)
    except Empty:
        return TimeoutError(f"no answer within {limit_s:g} s")


class _Whoever:
    """The policy that asks for no identity: the authority decides what a token's is called in its certificate."""

    def verify(self, cert: object) -> None:
        """Anybody."""


class KeylessVerifier:
    """Opens bundles that one identity signed, by the word of one issuer of identities."""

    def __init__(self, trusted_root: "TrustedRoot", identity: str, issuer: str) -> None:
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity

        if not identity.strip() or not issuer.strip():
            raise InvalidInput(
                "expected an identity and its issuer, found one empty: without them anybody could have signed"
            )
        self._verifier, self._who = Verifier(trusted_root=trusted_root), f"{identity} ({issuer})"
        self._policy = Identity(identity=identity, issuer=issuer)

    @classmethod
    def of(cls, trust: str, identity: str, issuer: str) -> "KeylessVerifier":
        """A verifier by `production`, `staging`, or a file with a trusted root or a client trust configuration."""
        return cls(_trusted_root(trust), identity, issuer)

    def open(self, envelope: Mapping[str, Any] | str | bytes, payload_type: str) -> bytes:
        """The payload of a bundle of this type; ``Unverified`` unless that identity signed exactly it and the log saw it."""
        from sigstore.models import Bundle

        try:
            given = json.dumps(envelope) if isinstance(envelope, Mapping) else envelope
            if len(given) > MAX_BUNDLE_BYTES:
                raise Unverified(f"expected a bundle of at most {MAX_BUNDLE_BYTES} bytes, found {len(given)}")
            found, payload = self._verifier.verify_dsse(Bundle.from_json(given), self._policy)
        except Unverified:
            raise
        except Exception as error:  # foreign bytes can fail the library in any way; each means: not verified
            raise Unverified(f"expected a Sigstore bundle signed by {self._who}, found: {_said(error)}") from error
        if found != payload_type:
            raise Unverified(f"expected a payload of type {payload_type}, found {found!r}")
        return payload


def _trust_config(trust: str) -> "ClientTrustConfig":
    config = _library()
    if trust in INSTANCES:
        return _fetched(trust)
    try:
        return config.from_json(Path(trust).read_text(encoding="utf-8"))
    except Exception as error:  # the library fails in its own ways on what is no configuration
        raise InvalidInput(
            f"GATE_SIGSTORE: expected {', '.join(INSTANCES)} or a file with a client trust configuration, found {trust!r}: "
            f"{_said(error)}"
        ) from error


def _trusted_root(trust: str) -> "TrustedRoot":
    config = _library()
    if trust in INSTANCES:
        return _fetched(trust).trusted_root
    from sigstore.models import TrustedRoot

    try:
        given = json.loads(Path(trust).read_text(encoding="utf-8"))
        if "trustedRoot" in given:
            return config.from_json(json.dumps(given)).trusted_root
        return TrustedRoot.from_file(trust)
    except Exception as error:  # the library fails in its own ways on what is no root
        raise InvalidInput(
            f"expected {', '.join(INSTANCES)} or a file with a trusted root or a client trust configuration, found {trust!r}: "
            f"{_said(error)}"
        ) from error


def _fetched(instance: str) -> "ClientTrustConfig":
    try:
        config: ClientTrustConfig = getattr(_library(), instance)()
    except Exception as error:  # an update over the network can fail in any way
        raise Unavailable(
            f"expected the trusted root of Sigstore's {instance} instance, found: {_said(error)}"
        ) from error
    return config


def _library() -> "type[ClientTrustConfig]":
    try:
        from sigstore.models import ClientTrustConfig
    except ImportError as error:
        raise InvalidInput(
            "expected the package sigstore for keyless signatures, found none; install basin-gate[sigstore]"
        ) from error
    return ClientTrustConfig


def _said(error: BaseException) -> str:
    """What went wrong; a short line without what was sent."""
    line = str(error).strip().split("\n")[0][:300]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
