"""Who may ask the HTTP API what: roles, the tokens that stand for them, and a browser's session. No clock, no files."""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput

TOKEN_BYTES = 32
"""Of randomness in a token: with that much a plain sha256 cannot be searched, so no slow hash is needed."""
SESSION_S = 12 * 3600
_PURPOSE = b"basin-gate browser session 1"


class Role(IntEnum):
    """What a caller may do; each may do what the ones before it may."""

    READER = 1
    SUBMITTER = 2
    POLICY_AUTHOR = 3
    REVIEWER = 4
    ADMINISTRATOR = 5

    @property
    def word(self) -> str:
        """The role as it is written."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> "Role":
        """The role of a word. Raises ``ValueError``."""
        found = next((role for role in cls if role.word == word), None)
        if found is None:
            raise ValueError(f"expected one of {', '.join(role.word for role in cls)}, found {word!r}")
        return found


class TokenEntry(Frozen):
    """One line of the token file: whose token it is, what it may do, and the sha256 (hex) of the token."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("role", mode="before")
    @classmethod
    def _word(cls, value: object) -> Role:
        return value if isinstance(value, Role) else Role.of(str(value))


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may ask. ``name`` is empty for one who was asked for no token."""

    name: str
    role: Role


def digest_of(token: str) -> str:
    """What the token file keeps of a token.

    >>> digest_of("a")[:8]
    'ca978112'
    """
    return hashlib.sha256(token.encode()).hexdigest()


def made_token(name: str, role: str) -> tuple[str, str]:
    """A new token, and its line for the token file. Raises `InvalidInput`."""
    token = "bgt_" + secrets.token_urlsafe(TOKEN_BYTES)
    try:
        entry = TokenEntry(name=name, role=Role.of(role), sha256=digest_of(token))
    except ValidationError as error:
        raise InvalidInput(
            f"name: expected at most 64 letters, digits, dots, dashes and underlines, beginning with a letter or "
            f"digit, found {name[:80]!r}"
        ) from error
    except ValueError as error:
        raise InvalidInput(f"--role: {error}") from error
    return token, f'- {{name: "{entry.name}", role: {entry.role.word}, sha256: "{entry.sha256}"}}'


def holder(entries: Iterable[TokenEntry], token: str) -> TokenEntry | None:
    """The entry of a token. Every entry is compared, each in constant time."""
    given, found = digest_of(token).encode(), None
    for entry in entries:
        if hmac.compare_digest(entry.sha256.encode(), given):
            found = entry
    return found


def sealed_session(entry: TokenEntry, ends_at: int, keys: Sequence[str]) -> str:
    """A browser's session as its cookie holds it: whose, until when (Unix seconds), and a seal over both.

    The seal covers the digest of the token too: a session ends when its token leaves the file. The first key seals.
    """
    return f"{entry.name}:{ends_at}:{_seal(entry, ends_at, keys[0])}"


def session_holder(entries: Iterable[TokenEntry], session: str, keys: Sequence[str], now: float) -> TokenEntry | None:
    """The entry whose session it is; ``None`` for one that has ended, was made up, or whose token is gone."""
    name, _, rest = session.partition(":")
    ends, _, seal = rest.partition(":")
    entry = next((each for each in entries if each.name == name), None)
    if entry is None or not (ends.isascii() and ends.isdigit() and len(ends) <= 12) or int(ends) <= now:
        return None
    given = seal.encode(errors="replace")
    known = [hmac.compare_digest(_seal(entry, int(ends), key).encode(), given) for key in keys]
    return entry if any(known) else None


def _seal(entry: TokenEntry, ends_at: int, secret: str) -> str:
    # A key of its own, so that nothing signed for MLflow can ever pass for a session.
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    return hmac.new(key, f"{entry.name}:{ends_at}:{entry.sha256}".encode(), "sha256").hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that host.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "gate.example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
