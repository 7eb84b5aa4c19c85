"""Who asks: a token in the header, a session in a browser's cookie, or, on this machine alone, anybody."""

import base64
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import structlog
from starlette.requests import HTTPConnection

from gate.adapters.token_file import TokenFile
from gate.domain.access import SESSION_S, Caller, Role, TokenEntry, holder, is_loopback, sealed_session, session_holder
from gate.domain.errors import InvalidInput, Unauthenticated
from gate.settings import Settings

log = structlog.get_logger(__name__)
UNNAMED = Caller("", Role.SUBMITTER)
"""Whoever is asked for no token: may read and ask, and nothing that has to be signed for by somebody."""
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Who is being answered; ``None`` on routes that are everybody's."""
NO_TOKEN = "expected `Authorization: Bearer TOKEN`, found none; `basin-gate token new` makes one"
WRONG_TOKEN = "expected a token that stands in GATE_TOKENS_FILE, found another; is it spelt whole, or withdrawn?"


@dataclass(frozen=True, slots=True)
class Access:
    """Tells callers apart. Without ``tokens`` everybody is `UNNAMED`; ``keys`` seal sessions; ``secure`` says that
    browsers come by TLS."""

    tokens: TokenFile | None
    keys: Sequence[str] = ()
    secure: bool = False
    clock: Callable[[], float] = time.time

    @property
    def cookie(self) -> str:
        """Name of the session's cookie. Browsers hold one with this prefix to its host and to TLS."""
        return "__Host-basin-gate" if self.secure else "basin-gate"

    def caller(self, request: HTTPConnection) -> Caller:
        """Who asks. Raises `Unauthenticated`, and `Unavailable` while the token file cannot be read."""
        if self.tokens is None:
            return UNNAMED
        header = request.headers.get("authorization")
        entry = self.session_of(request) if header is None else self._header(header)
        if entry is None:
            raise Unauthenticated(NO_TOKEN if header is None else WRONG_TOKEN)
        return Caller(entry.name, entry.role)

    def entry(self, token: str) -> TokenEntry | None:
        """The entry of a token, if it is known."""
        return holder(self.tokens.entries(), token) if self.tokens else None

    def session(self, entry: TokenEntry) -> str:
        """A new session's cookie."""
        return sealed_session(entry, int(self.clock()) + SESSION_S, self.keys)

    def session_of(self, request: HTTPConnection) -> TokenEntry | None:
        """Whose session the request's cookie is. A cookie only reads: a browser sends it without being asked to."""
        held = request.cookies.get(self.cookie)
        if self.tokens is None or held is None or request.scope["method"] not in ("GET", "HEAD"):
            return None
        return session_holder(self.tokens.entries(), held, self.keys, self.clock())

    def _header(self, header: str) -> TokenEntry | None:
        scheme, _, given = header.partition(" ")
        match scheme.lower():
            case "bearer":
                return self.entry(given.strip())
            case "basic":
                return self.entry(_password(given))
            case _:
                return None


def _password(given: str) -> str:
    """The password of basic authentication: for callers that can be told an address and no header, as Flagger."""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def build_access(settings: Settings) -> Access:
    """Access as the settings say. Raises `InvalidInput` where anybody could ask and nobody said so on purpose."""
    host, _ = settings.api_address()
    if settings.tokens_file is not None:
        if settings.api_open:
            raise InvalidInput("expected GATE_TOKENS_FILE or GATE_API_OPEN, found both; unset one")
        secure = settings.tls_certificate_file is not None or settings.public_url.startswith("https://")
        return Access(TokenFile(settings.tokens_file), settings.secrets_of_webhook(), secure)
    if settings.api_open:
        log.warning("the API asks nobody for a token (GATE_API_OPEN): whoever reaches it reads it", host=host)
    elif not is_loopback(host):
        raise InvalidInput(
            f"expected GATE_TOKENS_FILE, since others can reach the API at {host}, found none; make a first line with "
            "`basin-gate token new NAME --role ROLE` (or bind to 127.0.0.1 by GATE_API_BIND; or set GATE_API_OPEN=true, "
            "where a proxy before it authenticates)"
        )
    return Access(None)
