"""How much work there is, for whoever scales the workers."""

from fastapi import APIRouter, Request

from gate.api.door import Door
from gate.domain.checkpoint import Frozen

router = APIRouter(prefix="/v1/backlog", tags=["backlog"])


class QueueView(Frozen):
    """Jobs of one queue: ``queued`` wait for a worker, ``running`` have one; ``load`` is both."""

    queued: int
    running: int
    load: int


@router.get("")
def backlog(request: Request) -> dict[str, QueueView]:
    """Jobs by queue. A running job counts as load: a worker is not scaled away while it measures."""
    door: Door = request.app.state.door
    jobs = door.ledger.backlog(door.clock()).jobs
    counts = {name: (jobs.get((name, "queued"), 0), jobs.get((name, "running"), 0)) for name in door.queues}
    return {name: QueueView(queued=q, running=r, load=q + r) for name, (q, r) in counts.items()}
