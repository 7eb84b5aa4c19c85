"""Who asks: a token in the header, a session in a browser's cookie, or, on this machine alone, anybody."""

import base64
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import structlog
from starlette.requests import HTTPConnection

from gate.adapters.oidc import OidcIssuer, OidcTerms, looks_like_jwt, roles_of
from gate.adapters.token_file import TokenFile
from gate.domain.access import SESSION_S, Caller, Role, TokenEntry, holder, is_loopback, sealed_session, session_holder
from gate.domain.errors import Forbidden, InvalidInput, Unauthenticated
from gate.settings import Settings

log = structlog.get_logger(__name__)
UNNAMED = Caller("", Role.SUBMITTER)
"""Whoever is asked for no token: may read and ask, and nothing that has to be signed for by somebody."""
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Who is being answered; ``None`` on routes that are everybody's."""
NO_TOKEN = "expected `Authorization: Bearer TOKEN`, found none; `basin-gate token new` makes one"
WRONG_TOKEN = "expected a token that stands in GATE_TOKENS_FILE, or one of GATE_OIDC_ISSUER, found another; is it spelt whole, or withdrawn?"


@dataclass(frozen=True, slots=True)
class Access:
    """Tells callers apart. Without ``tokens`` and ``oidc`` everybody is `UNNAMED`; ``keys`` seal sessions; ``secure`` says that
    browsers come by TLS."""

    tokens: TokenFile | None
    keys: Sequence[str] = ()
    secure: bool = False
    clock: Callable[[], float] = time.time
    oidc: OidcIssuer | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked for a token."""
        return self.tokens is None and self.oidc is None

    @property
    def cookie(self) -> str:
        """Name of the session's cookie. Browsers hold one with this prefix to its host and to TLS."""
        return "__Host-basin-gate" if self.secure else "basin-gate"

    def caller(self, request: HTTPConnection, *, form: bool = False) -> Caller:
        """Who asks; ``form`` says that it may be by a form of the gate's own pages. Raises `Unauthenticated`, and `Unavailable` while the token file cannot be read."""
        if self.is_open:
            return UNNAMED
        header = request.headers.get("authorization")
        given = None if header is None else _given(header)
        if self.oidc is not None and given is not None and looks_like_jwt(given):
            return self.oidc.caller(given)
        entry = self.session_of(request, form=form) if header is None else self.entry(given or "")
        if entry is None:
            raise Unauthenticated(NO_TOKEN if header is None else WRONG_TOKEN)
        return Caller(entry.name, entry.role)

    def entry(self, token: str) -> TokenEntry | None:
        """The entry of a token, if it is known."""
        return holder(self.tokens.entries(), token) if self.tokens else None

    def session(self, entry: TokenEntry) -> str:
        """A new session's cookie."""
        return sealed_session(entry, int(self.clock()) + SESSION_S, self.keys)

    def session_of(self, request: HTTPConnection, *, form: bool = False) -> TokenEntry | None:
        """Whose session the request's cookie is. A cookie only reads: a browser sends it without being asked to. Only a
        ``form`` of the gate's own pages acts by it."""
        held = request.cookies.get(self.cookie)
        reads = request.scope["method"] in ("GET", "HEAD")
        if self.tokens is None or held is None or not (reads or (form and own_page(request))):
            return None
        return session_holder(self.tokens.entries(), held, self.keys, self.clock())


def named(act: str) -> str:
    """The caller's name. Raises `Forbidden` for somebody without one: an act has to be signed for."""
    caller = CALLER.get()
    if caller is None or not caller.name:
        raise Forbidden(
            f"expected somebody with a name, found nobody; {act} has to be signed for: set GATE_TOKENS_FILE"
        )
    return caller.name


def own_page(request: HTTPConnection) -> bool:
    """Whether a browser says that the gate's own page sent this. Pages of others cannot make it say so."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Without TLS browsers tell no site, but each POST's origin.
    return request.headers.get("origin") == f"{request.url.scheme}://{request.headers.get('host')}"


def _given(header: str) -> str | None:
    """The token that a header brings; ``None`` for a scheme that brings none."""
    scheme, _, given = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return given.strip()
        case "basic":
            return _password(given)
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
    oidc = build_oidc(settings)
    if settings.tokens_file is not None or oidc is not None:
        if settings.api_open:
            named = "GATE_TOKENS_FILE" if settings.tokens_file is not None else "GATE_OIDC_ISSUER"
            raise InvalidInput(f"expected {named} or GATE_API_OPEN, found both; unset one")
        secure = settings.tls_certificate_file is not None or settings.public_url.startswith("https://")
        tokens = TokenFile(settings.tokens_file) if settings.tokens_file is not None else None
        return Access(tokens, settings.secrets_of_webhook(), secure, oidc=oidc)
    if settings.api_open:
        log.warning("the API asks nobody for a token (GATE_API_OPEN): whoever reaches it reads it", host=host)
    elif not is_loopback(host):
        raise InvalidInput(
            f"expected GATE_TOKENS_FILE (or GATE_OIDC_ISSUER), since others can reach the API at {host}, found none; make a first line with "
            "`basin-gate token new NAME --role ROLE` (or bind to 127.0.0.1 by GATE_API_BIND; or set GATE_API_OPEN=true, "
            "where a proxy before it authenticates)"
        )
    return Access(None)


def build_oidc(settings: Settings) -> OidcIssuer | None:
    """The issuer as the settings say; ``None`` without one. Raises `InvalidInput` for one without an audience."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_audience:
        raise InvalidInput(
            "expected GATE_OIDC_AUDIENCE with GATE_OIDC_ISSUER, found none; without it a token that the issuer made for "
            "anybody else would count here"
        )
    terms = OidcTerms(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        roles_claim=settings.oidc_roles_claim,
        roles=roles_of(settings.oidc_roles),
        name_claim=settings.oidc_name_claim,
        leeway_s=settings.oidc_leeway_s,
    )
    return OidcIssuer(terms)
