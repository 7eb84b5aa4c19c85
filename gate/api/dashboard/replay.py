"""A policy's draft, or one in force, tried on what was judged before. It reads, and puts nothing in force."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from gate.adapters.policy_files import policy_text
from gate.api.access import CALLER
from gate.api.dashboard.page import PageRoute, page
from gate.api.door import Door
from gate.api.forms import checked, fields
from gate.api.policies import LONGEST, Rehearsal, Text, in_force, linted, rehearsed
from gate.domain.access import Role
from gate.domain.errors import InvalidInput
from gate.pages.prompts import quoted
from gate.pages.rehearsal import flip_lines, lost, outcomes, problem

router = APIRouter(prefix="/replay", route_class=PageRoute)

SHOWN = 200
LONGEST_FORM = 4 * LONGEST
"""A form writes a character of another alphabet as several."""


class ReplayForm(BaseModel):
    """What the form asks: ``budget`` is in percent; with ``only_check`` the draft is checked and not replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    draft: Text
    days: Annotated[int, Field(ge=1, le=3650)] = 90
    budget: Annotated[float | None, Field(ge=0, le=100)] = None
    only_check: bool = False


@router.get("")
def begin(request: Request, policy: Annotated[str, Query(max_length=63)] = "") -> HTMLResponse:
    """The form, with the text of a policy in force to begin with."""
    door: Door = request.app.state.door
    text = policy_text(in_force(door, policy), door.policies) if policy else ""
    return _page(door, {"draft": text})


@router.post("")
async def replay(request: Request) -> HTMLResponse:
    """What a draft would have decided, or what is wrong with it, with the form to go on from."""
    given = await fields(request, LONGEST_FORM)
    return await run_in_threadpool(_answer, request.app.state.door, given)


def _answer(door: Door, given: Mapping[str, str]) -> HTMLResponse:
    try:
        form = checked(ReplayForm, given)
    except InvalidInput as error:
        return _page(door, given, status=400, wrong=str(error))
    found = linted(door, form.draft)
    if found.problems:
        return _page(door, given, status=400, problems=[problem(each, form.draft) for each in found.problems])
    if form.only_check:
        return _page(door, given, lint=found)
    budget = None if form.budget is None else form.budget / 100
    seen = rehearsed(door, Rehearsal(policy=form.draft, days=form.days, budget=budget))
    return _page(
        door,
        given,
        lint=found,
        seen=seen,
        lost=lost(seen.replay),
        outcomes_of=outcomes(seen.replay),
        flips=flip_lines(seen.replay.flips[:SHOWN]),
    )


def _page(door: Door, given: Mapping[str, str], *, status: int = 200, **told: object) -> HTMLResponse:
    caller = CALLER.get()
    nothing: dict[str, object] = {
        "wrong": "",
        "problems": [],
        "lint": None,
        "seen": None,
        "lost": "",
        "outcomes_of": [],
        "flips": [],
    }
    return page(
        "replay.html",
        status=status,
        here="policies",
        draft=quoted(given.get("draft", ""), LONGEST),
        days=given.get("days", "90"),
        budget=given.get("budget", ""),
        names=[each.name for each in door.policies.policies],
        may=caller is not None and caller.role >= Role.POLICY_AUTHOR,
        **(nothing | told),
    )
