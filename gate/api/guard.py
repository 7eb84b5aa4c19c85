"""Before every route: who asks, and may they. It comes before a body is read."""

from http import HTTPStatus
from urllib.parse import quote

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gate.api.access import CALLER, Access
from gate.api.dashboard.page import HEADERS, page
from gate.api.problems import problem, status_of
from gate.api.routes import FORMS, PAGES, Known, at
from gate.domain.access import Caller
from gate.domain.errors import Forbidden, GateError, Unauthenticated

log = structlog.get_logger(__name__)
ENDED = (
    "expected the gate's own form from a browser that is signed in, found a session that has ended, or another site's form; "
    "nothing was done: sign in in another tab, come back to the form and send it again"
)


class Guard:
    """Lets a request through to a route that stands in the table, from a caller who has the role it needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guarded(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        known = at(scope["path"])
        route = known.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            await _nowhere(scope["method"], tuple(sorted(known)))(scope, receive, send)
            return
        try:
            caller = await _asked_in(request, route)
        except GateError as error:
            log.warning("refused", method=route.method, route=route.template, reason=type(error).__name__)
            await _refusal(request, route, error)(scope, receive, send)
            return
        mark = CALLER.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            CALLER.reset(mark)


async def _asked_in(request: Request, route: Known) -> Caller | None:
    """Who asks. An issuer's keys may have to be asked for: meanwhile others are answered."""
    if request.app.state.access.oidc is None:
        return _admitted(request, route)
    return await run_in_threadpool(_admitted, request, route)


def _admitted(request: Request, route: Known) -> Caller | None:
    if route.needs is None:
        return None
    access: Access = request.app.state.access
    caller = access.caller(request, form=(route.method, route.template) in FORMS)
    if caller.role < route.needs:
        raise Forbidden(
            f"expected a token with the role {route.needs.word} or more, found {caller.name or 'nobody'} with the "
            f"role {caller.role.word}; ask an administrator for another line in GATE_TOKENS_FILE, or the issuer for another role"
        )
    return caller


def _nowhere(method: str, allowed: tuple[str, ...]) -> Response:
    if not allowed:
        return problem(HTTPStatus.NOT_FOUND, "expected a route of this gate, found none at this path; see /docs")
    reply = problem(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {' or '.join(allowed)}, found {method}")
    reply.headers["Allow"] = ", ".join(allowed)
    return reply


def _led(request: Request, status: HTTPStatus, error: GateError) -> Response:
    """To where one signs in and back, or a page that says what is missing."""
    if not isinstance(error, Unauthenticated):
        return page("problem.html", status=status.value, title=status.phrase, detail=str(error))
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/sign-in?to={quote(back, safe='')}", 303, HEADERS)


def _refusal(request: Request, route: Known, error: GateError) -> Response:
    """A refusal as the one who asked can read it: people are led to where one signs in."""
    status = status_of(error)
    if "text/html" in request.headers.get("accept", ""):
        if (route.method, route.template) in FORMS:
            told = ENDED if isinstance(error, Unauthenticated) else str(error)
            return page("problem.html", status=status.value, title=status.phrase, detail=told)
        if (route.method, route.template) in PAGES:
            return _led(request, status, error)
    reply = problem(status, str(error))
    if isinstance(error, Unauthenticated):
        reply.headers["WWW-Authenticate"] = 'Bearer realm="basin-gate"'
    return reply
