"""Bases, and each with all its fine-tunes in its basin."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from gate.api.dashboard.page import PageRoute, page
from gate.api.door import Door
from gate.domain.errors import NotFound
from gate.domain.overview import FleetQuery
from gate.pages.base import of_profile, scatter
from gate.pages.charts.basin import panels
from gate.pages.fleet import OUTCOMES, line
from gate.pages.inert import inert

router = APIRouter(prefix="/bases", route_class=PageRoute)

SHOWN = 25
DRAWN = 500


@router.get("")
def bases(request: Request) -> HTMLResponse:
    """Every onboarded base with how its fine-tunes fared."""
    door: Door = request.app.state.door
    rows = [
        (base, door.ledger.fleet(FleetQuery(base_digest=base.digest, limit=1)).counts) for base in door.ledger.bases()
    ]
    return page("bases.html", here="bases", bases=rows, outcomes=OUTCOMES)


@router.get("/{digest}")
def base(request: Request, digest: str) -> HTMLResponse:
    """One base: its own basin, and where each of its fine-tunes stands."""
    door: Door = request.app.state.door
    known = next((each for each in door.ledger.bases() if each.digest == digest), None)
    if known is None:
        raise NotFound(f"expected the digest of an onboarded base, found {inert(digest, 80)}")
    found = door.ledger.fleet(FleetQuery(base_digest=digest, limit=DRAWN))
    profile = next(iter(door.ledger.profiles(digest)), None)
    return page(
        "base.html",
        here="bases",
        base=known,
        counts=found.counts,
        total=sum(found.counts.values()),
        outcomes=OUTCOMES,
        scatter=scatter(found.rows),
        drawn=sum(row.basin_position is not None and row.worst_change is not None for row in found.rows),
        rows=[line(row, door.clock()) for row in found.rows[:SHOWN]],
        shown=SHOWN,
        profile=profile,
        panels=panels(of_profile(profile)) if profile else [],
    )
