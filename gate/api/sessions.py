"""Where people sign in: the token is typed once, and the browser keeps a session instead of it."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from gate.api.access import Access
from gate.api.dashboard.page import HEADERS, PageRoute, page
from gate.api.forms import fields
from gate.domain.access import SESSION_S
from gate.domain.errors import Forbidden

router = APIRouter(include_in_schema=False, route_class=PageRoute)
# A path of this gate: no other host, by whatever a browser takes for one.
_HERE = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


@router.get("/sign-in")
def sign_in(request: Request, to: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """The form; who is signed in, or need not be, is led on."""
    access: Access = request.app.state.access
    if access.is_open or access.session_of(request) is not None:
        return RedirectResponse(target(to), 303, HEADERS)
    return _form(to)


@router.post("/sign-in")
async def signed_in(request: Request) -> Response:
    """Takes the token and gives a session."""
    access: Access = request.app.state.access
    _from_here(request)
    given = await fields(request)
    to = given.get("to", "/")
    entry = access.entry(given.get("token", "").strip())
    if entry is None:
        return _form(to, "That token is not known.")
    reply = RedirectResponse(target(to), 303, HEADERS)
    reply.set_cookie(
        access.cookie,
        access.session(entry),
        max_age=SESSION_S,
        path="/",
        secure=access.secure,
        httponly=True,
        samesite="strict",
    )
    return reply


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """Takes the session from the browser."""
    access: Access = request.app.state.access
    _from_here(request)
    reply = RedirectResponse("/sign-in", 303, HEADERS)
    reply.delete_cookie(access.cookie, path="/", secure=access.secure, httponly=True, samesite="strict")
    return reply


def target(to: str) -> str:
    """Where to go on to: a path of this gate, else the fleet.

    >>> [target(to) for to in ("/queue?a=1", "//evil.example", "/\\\\evil.example", "https://evil.example")]
    ['/queue?a=1', '/', '/', '/']
    """
    return to if _HERE.fullmatch(to) else "/"


def _form(to: str, wrong: str = "") -> Response:
    return page("sign_in.html", status=401 if wrong else 200, to=target(to), wrong=wrong)


def _from_here(request: Request) -> None:
    """Another site may not sign anybody in or out. Browsers say where a request comes from, others say nothing."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("expected this page's own form, found a request of another site")
