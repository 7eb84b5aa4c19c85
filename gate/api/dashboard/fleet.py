"""The fleet: every evaluation, filtered, sorted, a page at a time."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from gate.api.dashboard.page import PageRoute, page
from gate.api.door import Door
from gate.domain.errors import InvalidInput
from gate.domain.overview import FleetQuery
from gate.pages.fleet import OUTCOMES, SORTS, line

router = APIRouter(route_class=PageRoute)

PAGE = 50
Outcome = Literal["", "open", "approved", "blocked", "needs_review", "error"]
Sort = Literal["newest", "oldest", "name", "farthest"]


@router.get("/")
def fleet(
    request: Request,
    outcome: Outcome = "",
    text: Annotated[str, Query(max_length=200)] = "",
    sort: Sort = "newest",
    after: Annotated[str, Query(max_length=2000)] = "",
) -> HTMLResponse:
    """A page of evaluations."""
    door: Door = request.app.state.door
    asked = {"outcome": outcome, "text": text, "sort": sort}
    query = FleetQuery(outcome=outcome or None, text=text, sort=sort, after=opened(after), limit=PAGE)
    found = door.ledger.fleet(query)
    return page(
        "fleet.html",
        here="fleet",
        rows=[line(row, door.clock()) for row in found.rows],
        counts=found.counts,
        total=sum(found.counts.values()),
        outcomes=OUTCOMES,
        sorts=SORTS,
        asked=asked,
        links={each: address(asked | {"outcome": each}) for each in ("", *OUTCOMES)},
        first=address(asked) if after else "",
        next=address(asked | {"after": closed(found.next)}) if found.next else "",
    )


def address(asked: Mapping[str, str]) -> str:
    """The fleet's address with what was asked.

    >>> address({"outcome": "", "text": "a&b"})
    '/?text=a%26b'
    """
    return "/?" + urlencode({name: value for name, value in asked.items() if value})


def closed(place: Sequence[Any]) -> str:
    """A place in the order as a word for an address.

    >>> opened(closed(["a", 1.5]))
    ['a', 1.5]
    """
    return base64.urlsafe_b64encode(json.dumps(list(place)).encode()).decode().rstrip("=")


def opened(word: str) -> list[str | float] | None:
    """The place a word stands for; ``None`` for the beginning. Raises `InvalidInput`."""
    if not word:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)))
    except ValueError:
        place = None
    if not isinstance(place, list) or not all(type(value) in (str, float, int) for value in place):
        raise InvalidInput("expected the place a page ended at, found something else; begin with the first page")
    return place
