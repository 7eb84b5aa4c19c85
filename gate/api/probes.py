"""Is it alive, is it ready, how is it doing."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gate.api.door import Door
from gate.domain.errors import GateError

router = APIRouter(tags=["probes"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "The ledger does not answer: nothing can be accepted."}})
def readyz(request: Request) -> dict[str, str]:
    """Deliveries can be committed. A broker that is away is told but refuses nobody: its doorbells are rung again,
    while a delivery that found the door shut is lost."""
    door: Door = request.app.state.door
    door.ledger.ping()
    try:
        door.broker()
    except GateError as error:
        return {"status": "ready", "broker": str(error)}
    return {"status": "ready", "broker": "ok"}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    door: Door = request.app.state.door
    return Response(generate_latest(door.metrics.registry), media_type=CONTENT_TYPE_LATEST)
