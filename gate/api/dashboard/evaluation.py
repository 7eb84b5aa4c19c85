"""One evaluation: how far it is, live; what came of it; its report."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from gate.api.access import CALLER
from gate.api.dashboard.page import HEADERS, PageRoute, page
from gate.api.door import Door
from gate.api.samples import samples_of
from gate.domain.access import Role
from gate.domain.checkpoint import Checkpoint, Layout, Lineage
from gate.domain.errors import NotFound, Unavailable
from gate.domain.evidence import Evidence
from gate.domain.overview import EvaluationRow, FleetRow
from gate.domain.prompts import fitting
from gate.domain.review import objection
from gate.domain.verdict import Outcome, ReviewDecision, Verdict
from gate.domain.waiving import waivable
from gate.pages.fleet import STEPS, Pace, line, span
from gate.pages.html_report import failure, html, moment
from gate.pages.inert import inert
from gate.pages.narrowing import narrowing_rows
from gate.pages.rendering import document_policy
from gate.pages.waivers import waiver_line
from gate.pages.wording import FAILED, NEXT

router = APIRouter(prefix="/evaluations", route_class=PageRoute)

LOOK_EVERY_S = 1.0
LONGEST_S = 300.0
"""A stream ends after this; the page opens another. So a page nobody closes does not hold a connection for ever."""


@router.get("/{key}")
def evaluation(request: Request, key: str) -> HTMLResponse:
    """The evaluation's page."""
    door: Door = request.app.state.door
    row = found(door, key)
    kept = door.ledger.verdict(key)
    return page(
        "evaluation.html",
        here="fleet",
        line=line(FleetRow(row, None, None), door.clock()),
        row=row,
        open=row.outcome is None,
        steps=steps(row),
        narrowing=narrowing_rows(row.narrowing),
        next=NEXT[kept[0].outcome] if kept else FAILED if row.outcome is not None else "",
        took=span(row.updated_at - row.created_at),
        asked=moment(row.created_at),
        expires=moment(kept[0].expires_at) if kept else "",
        base=next((b for b in door.ledger.bases() if kept and b.digest == kept[0].base_digest), None),
        run=run_url(door, row),
        review=review_of(door, key, kept[0] if kept else None),
        waivers=waivers_of(door, row, kept[0] if kept else None),
    )


@router.get("/{key}/report")
def report(request: Request, key: str) -> HTMLResponse:
    """The report as it stands in the registry's run, made from the same evidence and verdict."""
    door: Door = request.app.state.door
    row = found(door, key)
    headers = HEADERS | {"Content-Security-Policy": f"{document_policy()}; frame-ancestors 'none'"}
    return HTMLResponse(document(door, row), headers=headers)


@router.get("/{key}/events")
async def events(request: Request, key: str) -> StreamingResponse:
    """What changes about an evaluation, as server-sent events, until it has ended."""
    door: Door = request.app.state.door
    await run_in_threadpool(found, door, key)
    return StreamingResponse(changes(door, key), media_type="text/event-stream", headers=HEADERS)


def found(door: Door, key: str) -> EvaluationRow:
    """The evaluation of a key. Raises `NotFound`."""
    row = door.ledger.evaluation(key)
    if row is None:
        raise NotFound(f"expected an evaluation with key {inert(key, 80)}, found none")
    return row


def document(door: Door, row: EvaluationRow) -> str:
    """The evaluation's report as one HTML document. Raises `NotFound` while there is none."""
    subject = f"{row.request.version.name} version {row.request.version.version}"
    kept = door.ledger.verdict(row.request.key)
    if kept is not None:
        nothing = Checkpoint(layout=Layout.UNKNOWN, files=())
        evidence = door.ledger.evidence(row.evidence_key) if row.evidence_key else None
        evidence = evidence or Evidence(key=row.request.key, candidate=nothing, lineage=Lineage())
        prompts = fitting(evidence, door.ledger.prompts(evidence.key))
        return html(kept[0], evidence.model_copy(update={"errors": kept[0].errors}), subject, prompts)
    if row.outcome is None:
        raise NotFound(
            f"expected a verdict on {subject}, found it {row.state} ({100 * row.progress:.0f} %); wait for it"
        )
    return failure(subject, row.reason or "the evaluation failed without saying why")


def review_of(door: Door, key: str, verdict: Verdict | None) -> dict[str, object] | None:
    """What the page says of a review: who decides (or did), and whether whoever looks may; ``None`` where none is due."""
    glass = next((each.glass for each in door.ledger.glasses(key) if each.unreviewed), None)
    made = verdict.review if verdict and glass is None else None
    if verdict is None or (made is None and glass is None and verdict.outcome is not Outcome.NEEDS_REVIEW):
        return None
    caller = CALLER.get()
    return {
        "made": made,
        "at": moment(made.decided_at) if made else "",
        "asked": None if glass else door.ledger.review(key, verdict.digest),
        "glass": glass,
        "verdict": glass.digest if glass else verdict.digest,
        "may": caller is not None and bool(caller.name) and caller.role >= Role.REVIEWER,
        "why_not": None if glass else objection(verdict, ReviewDecision.APPROVE),
        "samples": None if glass or made else samples_of(door, key, verdict),
    }


def waivers_of(door: Door, row: EvaluationRow, verdict: Verdict | None) -> dict[str, object] | None:
    """What the page says of waivers: the rules that one could be asked for, each with the form's address, and those open for
    these bytes; ``None`` where there are neither."""
    if verdict is None or verdict.candidate_digest is None:
        return None
    policy, now = door.standing.policy_of(row.request.policy_digest), door.clock()
    lines = [waiver_line(each, now) for each in door.ledger.waivers(verdict.candidate_digest)]
    grants = policy is not None and policy.waivers is not None and verdict.review is None
    version = {"name": row.request.version.name, "version": row.request.version.version}
    rules = waivable(verdict.findings) if grants else ()
    ways = [(rule, f"/waivers/ask?{urlencode(version | {'rule': rule})}") for rule in rules]
    known = [each for each in lines if each.is_open and each.kept.waiver.policy == row.request.policy]
    return {"ways": ways, "open": known} if ways or known else None


def steps(row: EvaluationRow) -> list[tuple[str, str]]:
    """The steps of an evaluation, each ``past``, ``now`` or ``ahead``."""
    at = STEPS.index(row.state)
    done = row.outcome is not None
    return [(s, "past" if n < at or done else "now" if n == at else "ahead") for n, s in enumerate(STEPS)]


def run_url(door: Door, row: EvaluationRow) -> str:
    """Where the run stands in the registry's own pages; empty while there is none, or the registry does not answer."""
    try:
        return door.registry.run_url(row.run_id) if row.run_id else ""
    except Unavailable:
        return ""


async def changes(door: Door, key: str) -> AsyncIterator[str]:
    """An event each time something changed; the last one is ``done``."""
    before, ends, pace = "", time.monotonic() + LONGEST_S, Pace()
    while time.monotonic() < ends:
        row = await run_in_threadpool(found, door, key)
        seen = line(FleetRow(row, None, None), door.clock())
        left = pace.left(row.state, row.progress, time.monotonic())
        now = json.dumps(
            {
                "word": seen.word,
                "told": inert(seen.told),
                "percent": seen.percent,
                "state": row.state,
                "left": left,
                "narrowing": [asdict(each) for each in narrowing_rows(row.narrowing)],
            }
        )
        if row.outcome is not None:
            yield f"event: done\ndata: {now}\n\n"
            return
        # A line of comment keeps what lies between from taking the silence for an end.
        yield f"data: {now}\n\n" if now != before else ": still here\n\n"
        before = now
        await asyncio.sleep(LOOK_EVERY_S)
