"""Bearer tokens of an OpenID Connect issuer, checked with the keys that it publishes. Whatever is in doubt lets nobody in."""

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import structlog
from jwt.types import Options

from gate.domain.access import Caller, Role, is_loopback
from gate.domain.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key alone: with ``none`` or a shared secret, whoever knows the published key could sign."""
DISCOVERY = "/.well-known/openid-configuration"
KEYS_KEPT_S = 300.0
"""How long published keys count before they are asked for again; a key withdrawn by the issuer ends by then."""
UNKNOWN_KEY_PAUSE_S = 10.0
"""Tokens naming keys that nobody knows make the gate ask the issuer no more often than this."""
TIMEOUT_S = 5.0
LONGEST_DOCUMENT = 1_000_000
LONGEST_NAME = 200
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OidcTerms:
    """Whose tokens count, for whom they must be made, and how their claims become a name and a role."""

    issuer: str
    audience: str
    roles_claim: str = "roles"
    roles: Mapping[str, Role] = field(default_factory=lambda: {role.word: role for role in Role})
    name_claim: str = "sub"
    leeway_s: float = 30.0


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """One of the issuer's public keys, and the algorithm that it is for, where it says so."""

    key: Any
    algorithm: str | None


class OidcIssuer:
    """Tells callers by the tokens of one issuer. Thread-safe; asks the issuer for its keys when they are needed."""

    def __init__(self, terms: OidcTerms) -> None:
        _refuse_plain(terms.issuer, "GATE_OIDC_ISSUER")
        self._terms, self._lock = terms, threading.Lock()
        self._keys: Mapping[str, PublishedKey] = {}
        self._read_at = self._missed_at = float("-inf")

    def caller(self, token: str) -> Caller:
        """Who holds a token.

        Raises `Unauthenticated` for one that does not count, `Forbidden` for one without a role here, and `Unavailable`
        where the issuer's keys are needed and cannot be had.
        """
        claims = self._claims(token)
        name = claims.get(self._terms.name_claim)
        if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise Unauthenticated(f"expected a token whose claim {self._terms.name_claim!r} is a name, found otherwise")
        held = [
            self._terms.roles[word] for word in _words(claims, self._terms.roles_claim) if word in self._terms.roles
        ]
        if not held:
            wanted = ", ".join(sorted(self._terms.roles))
            raise Forbidden(
                f"expected a token whose claim {self._terms.roles_claim!r} names one of {wanted}, found none; "
                "have the issuer grant one"
            )
        # A prefix, so that no subject of the issuer passes for a name in the token file.
        return Caller(f"oidc:{name}", max(held))

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError("not an algorithm of a private key")
            key = self._key(header.get("kid"), algorithm)
            required: Options = {"require": ["exp", "iss", "aud", self._terms.name_claim]}
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._terms.audience,
                issuer=self._terms.issuer,
                leeway=self._terms.leeway_s,
                options=required,
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            # The kind of error only: its text may quote the token's claims.
            raise Unauthenticated(
                f"expected a token of {self._terms.issuer} for {self._terms.audience!r}, found one that does not count "
                f"({type(error).__name__}); ask the issuer for another"
            ) from error

    def _key(self, kid: object, algorithm: str) -> Any:
        with self._lock:
            now = time.monotonic()
            if now - self._read_at > KEYS_KEPT_S:
                self._read(now)
            elif kid not in self._keys and now - self._missed_at > UNKNOWN_KEY_PAUSE_S:
                self._missed_at = now
                self._read(now)
            if not isinstance(kid, str) or kid not in self._keys:
                raise jwt.InvalidKeyError("no such key")
            published = self._keys[kid]
        # A key that names its algorithm is for no other.
        if published.algorithm not in (None, algorithm):
            raise jwt.InvalidAlgorithmError("not the algorithm of that key")
        return published.key

    def _read(self, now: float) -> None:
        """The issuer's keys as they are now. Keys too old to count are not fallen back on."""
        try:
            keys = _keys_of(_document(self._jwks_address()))
        except Unavailable:
            if now - self._read_at > KEYS_KEPT_S:
                self._keys = {}
            raise
        self._keys, self._read_at = keys, now
        log.info("issuer's keys read", issuer=self._terms.issuer, keys=len(keys))

    def _jwks_address(self) -> str:
        found = _document(self._terms.issuer.rstrip("/") + DISCOVERY)
        address = found.get("jwks_uri")
        if found.get("issuer") != self._terms.issuer or not isinstance(address, str):
            raise Unavailable(
                f"expected {self._terms.issuer}{DISCOVERY} to name that issuer and a jwks_uri, found otherwise; "
                "write GATE_OIDC_ISSUER exactly as the issuer calls itself"
            )
        try:
            _refuse_plain(address, "jwks_uri")
        except InvalidInput as error:
            raise Unavailable(str(error)) from error
        return address


def roles_of(text: str) -> Mapping[str, Role]:
    """Which of the issuer's words means which role, from ``word=role,…``; each role's own word without any.

    >>> roles_of("ml-leads=reviewer, everybody=reader")["ml-leads"]
    <Role.REVIEWER: 4>
    """
    if not text.strip():
        return {role.word: role for role in Role}
    found = {}
    for pair in text.split(","):
        word, _, role = (part.strip() for part in pair.partition("="))
        try:
            found[word] = Role.of(role)
        except ValueError as error:
            raise InvalidInput(f"GATE_OIDC_ROLES: {error} in {pair.strip()!r}; write WORD=ROLE,…") from error
        if not word:
            raise InvalidInput(f"GATE_OIDC_ROLES: expected a word before =, found {pair.strip()!r}; write WORD=ROLE,…")
    return found


def looks_like_jwt(token: str) -> bool:
    """Whether a bearer token is one of an issuer; those of the token file have no dots."""
    return token.count(".") == 2


def _words(claims: Mapping[str, Any], path: str) -> Sequence[str]:
    """The words at a claim; ``realm_access.roles`` is the claim ``roles`` in ``realm_access``."""
    found: Any = claims.get(path, claims)
    for part in () if path in claims else path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    words = found.split() if isinstance(found, str) else found
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []


def _keys_of(document: Mapping[str, Any]) -> Mapping[str, PublishedKey]:
    """The published keys that check signatures, by their names; others are left out."""
    keys = {}
    for each in document.get("keys", ()):
        usable = isinstance(each, dict) and isinstance(each.get("kid"), str) and each.get("use", "sig") == "sig"
        if not usable or each.get("kty") == "oct":
            continue
        try:
            keys[each["kid"]] = PublishedKey(jwt.PyJWK(each).key, each.get("alg"))
        except jwt.PyJWTError as error:
            log.warning("issuer's key left out", kid=each["kid"], reason=type(error).__name__)
    return keys


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The issuer's documents come from where they were said to be, or not at all."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _document(address: str) -> Mapping[str, Any]:
    try:
        with _OPENER.open(address, timeout=TIMEOUT_S) as answer:
            found = json.loads(answer.read(LONGEST_DOCUMENT))
    except (OSError, ValueError, urllib.error.URLError) as error:
        log.warning("issuer does not answer", address=address, reason=type(error).__name__)
        raise Unavailable(
            f"expected the issuer's document at {address}, found no answer ({type(error).__name__}); try again later"
        ) from error
    if not isinstance(found, dict):
        raise Unavailable(f"expected a JSON object at {address}, found otherwise; check GATE_OIDC_ISSUER")
    return found


def _refuse_plain(address: str, what: str) -> None:
    """Keys that come without TLS could be anybody's."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return
    raise InvalidInput(
        f"{what}: expected an https:// address, found {address[:200]!r}; keys need a way nobody can alter"
    )
