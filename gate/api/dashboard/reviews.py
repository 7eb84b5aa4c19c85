"""The inbox of verdicts that need a person, and the form by which one decides."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from gate.api.dashboard.page import HEADERS, PageRoute, page
from gate.api.door import Door
from gate.api.forms import fields
from gate.api.reviews import ReviewAsked, keep
from gate.domain.errors import InvalidInput
from gate.domain.overview import FleetQuery
from gate.pages.fleet import line

router = APIRouter(route_class=PageRoute)

SHOWN = 100


@router.get("/reviews")
def reviews(request: Request) -> HTMLResponse:
    """What waits for a person, the longest waiting first."""
    door: Door = request.app.state.door
    found = door.ledger.fleet(FleetQuery(outcome="needs_review", standing=True, sort="oldest", limit=SHOWN))
    return page(
        "reviews.html",
        here="reviews",
        rows=[line(row, door.clock()) for row in found.rows],
        total=found.counts.get("needs_review", 0),
        shown=SHOWN,
    )


@router.post("/evaluations/{key}/review")
async def decide(request: Request, key: str) -> Response:
    """Takes the decision of whoever is signed in, and shows the evaluation again."""
    given = await fields(request)
    try:
        asked = ReviewAsked.model_validate({**given, "evaluation": key})
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][0] if first["loc"] else "the form"
        raise InvalidInput(f"expected a decision with a reason, found at {place}: {first['msg']}") from error
    await run_in_threadpool(keep, request.app.state.door, asked)
    return RedirectResponse(f"/evaluations/{asked.evaluation}", 303, HEADERS)
