"""Is it alive, is it ready, how is it doing."""

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

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
    """Prometheus' text format, or OpenMetrics (with traces as exemplars) for a scraper that asks for it."""
    door: Door = request.app.state.door
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(door.metrics.registry), media_type=media_type)
