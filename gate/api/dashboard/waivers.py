"""Waivers: those there are, one of them, and the forms by which people ask for one, approve it and end it."""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from gate.api.access import CALLER
from gate.api.dashboard.page import HEADERS, PageRoute, page
from gate.api.door import Door
from gate.api.forms import checked, fields
from gate.api.problems import status_of
from gate.api.waivers import WaiverAsked, WaiverEnded, approved, requested, revoked, view
from gate.domain.access import Role
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.overview import WaiverQuery
from gate.domain.waiver import NAME_CHARACTERS, REASON_CHARACTERS
from gate.pages.html_report import moment
from gate.pages.waivers import STANDINGS, waiver_line

router = APIRouter(prefix="/waivers", route_class=PageRoute)

PAGE = 50
MOST_VERSIONS = 20
Standing = Literal["", "in_force", "waiting", "ended"]


@router.get("")
def waivers(
    request: Request, standing: Standing = "", begin: Annotated[int, Query(ge=0, le=1_000_000)] = 0
) -> HTMLResponse:
    """A page of waivers, those open first."""
    door: Door = request.app.state.door
    now = door.clock()
    found = door.ledger.waiver_page(WaiverQuery(at=now, standing=standing or None, offset=begin, limit=PAGE))
    return page(
        "waivers.html",
        here="waivers",
        rows=[waiver_line(each, now) for each in found.rows],
        counts=found.counts,
        total=sum(found.counts.values()),
        standings=STANDINGS,
        standing=standing,
        links={each: address(each) for each in ("", *STANDINGS)},
        first=address(standing) if begin else "",
        next=address(standing, begin + PAGE) if found.more else "",
    )


@router.get("/ask")
def form(request: Request) -> HTMLResponse:
    """The form by which one asks for a waiver; what the address names stands in it already."""
    return _form({name: request.query_params.get(name, "") for name in WaiverAsked.model_fields})


@router.post("")
async def ask(request: Request) -> Response:
    """Asks for a waiver in the name of whoever is signed in, and shows it; shows the form again where it may not be."""
    given = await fields(request)
    try:
        made = await run_in_threadpool(requested, request.app.state.door, checked(WaiverAsked, given))
    except (InvalidInput, NotFound) as error:
        return _form(given, status=status_of(error).value, wrong=str(error))
    return RedirectResponse(f"/waivers/{made.id}", 303, HEADERS)


@router.get("/{id}")
def waiver(request: Request, id: str) -> HTMLResponse:
    """One waiver: what it lets, who answers for it, and what whoever looks may do about it."""
    door: Door = request.app.state.door
    kept, now = door.ledger.waiver(id), door.clock()
    caller, shown = CALLER.get(), view(kept, now)
    return page(
        "waiver.html",
        here="waivers",
        line=waiver_line(kept, now),
        waiver=shown,
        asked=moment(kept.waiver.requested_at),
        versions=_versions(door, shown.candidate, shown.policy),
        most=MOST_VERSIONS,
        may=_may(Role.REVIEWER),
        own=caller is not None and caller.name == shown.requested_by,
        approved=caller is not None and caller.name in shown.approvers,
    )


@router.post("/{id}/approvals")
async def approve(request: Request, id: str) -> Response:
    """Adds the approval of whoever is signed in, and shows the waiver again."""
    await run_in_threadpool(approved, request.app.state.door, id)
    return RedirectResponse(f"/waivers/{id}", 303, HEADERS)


@router.post("/{id}/revocation")
async def revoke(request: Request, id: str) -> Response:
    """Ends the waiver, and shows it again."""
    ended = checked(WaiverEnded, await fields(request))
    await run_in_threadpool(revoked, request.app.state.door, id, ended)
    return RedirectResponse(f"/waivers/{id}", 303, HEADERS)


def _versions(door: Door, candidate: str, policy: str) -> list[tuple[ModelVersion, str]]:
    """The versions with these bytes, each with the key of its evaluation under the policy of that name that is in force."""
    digest = next((each.digest for each in door.policies.policies if each.name == policy), "")
    found = door.ledger.versions_of(candidate)[: MOST_VERSIONS + 1]
    rows = [(version, door.ledger.evaluation_of(version.identity, digest)) for version in found]
    return [(version, row.request.key if row else "") for version, row in rows]


def _form(given: Mapping[str, str], *, status: int = 200, wrong: str = "") -> HTMLResponse:
    shown = {name: given.get(name, "") for name in WaiverAsked.model_fields}
    return page(
        "ask_waiver.html", status=status, here="waivers", given=shown, wrong=wrong, may=_may(Role.SUBMITTER),
        longest=NAME_CHARACTERS, longest_reason=REASON_CHARACTERS,
    )  # fmt: skip


def _may(role: Role) -> bool:
    """Whether whoever looks has a name to sign with, and the role."""
    caller = CALLER.get()
    return caller is not None and bool(caller.name) and caller.role >= role


def address(standing: str, begin: int = 0) -> str:
    """The list's address with what was asked.

    >>> address("waiting", 50), address("")
    ('/waivers?standing=waiting&begin=50', '/waivers')
    """
    asked = {name: value for name, value in (("standing", standing), ("begin", begin)) if value}
    return f"/waivers?{urlencode(asked)}" if asked else "/waivers"
