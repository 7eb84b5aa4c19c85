"""What is waiting, what is being worked on, and by whom."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from gate.api.dashboard.page import PageRoute, page
from gate.api.door import Door
from gate.domain.overview import JobAtWork
from gate.pages.fleet import span

router = APIRouter(prefix="/queue", route_class=PageRoute)

STATES = ("running", "queued", "waiting", "failed", "done")
SHOWN = 200


@router.get("")
def queue(request: Request) -> HTMLResponse:
    """The queues, and each job that is held or due."""
    door: Door = request.app.state.door
    now, backlog = door.clock(), door.ledger.backlog(door.clock())
    queues = sorted({name for name, _ in backlog.jobs})
    jobs = door.ledger.at_work(SHOWN)
    return page(
        "queue.html",
        here="queue",
        states=STATES,
        queues=[(q, [backlog.jobs.get((q, s), 0) for s in STATES], _waited(backlog.oldest_s.get(q))) for q in queues],
        held=[
            (job, _subject(job), span(now - job.queued_at), lease(job, now)) for job in jobs if job.state == "running"
        ],
        due=[(job, _subject(job), span(now - job.queued_at)) for job in jobs if job.state == "queued"],
        expired=backlog.expired_leases,
        outbox=backlog.outbox,
        shown=SHOWN,
    )


def lease(job: JobAtWork, now: float) -> str:
    """How long a job is still held without word from its worker."""
    if job.lease_until is None:
        return ""
    left = job.lease_until - now
    return f"{span(left)} left" if left >= 0 else f"ended {span(-left)} ago"


def _waited(seconds: float | None) -> str:
    return "" if seconds is None else span(seconds)


def _subject(job: JobAtWork) -> str:
    """The key of the evaluation a job belongs to alone; empty for one that several share."""
    return job.key.partition(":")[2] if job.kind in ("inspect", "judge") else ""
