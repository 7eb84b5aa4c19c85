"""MLflow's door. A delivery is believed, committed, then answered; nothing slow happens here."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from gate.adapters import tracing
from gate.adapters.metrics import Metrics
from gate.api.door import Door, take_in
from gate.api.problems import Oversized
from gate.domain.errors import GateError, InvalidInput, Unavailable, Unverified
from gate.domain.events import parse_event, verify_delivery

router = APIRouter(tags=["webhooks"])
ANSWERS = {"accepted": 202, "repeated": 202, "ignored": 204, "ping": 200}


@router.post(
    "/webhooks/mlflow",
    status_code=202,
    responses={
        200: {"description": "MLflow's test delivery; nothing to do."},
        204: {"description": "Not ours: nothing to evaluate."},
        400: {"description": "Signed, but not MLflow's shape."},
        401: {"description": "Not signed with a configured secret, or outside the time window."},
        413: {"description": "Larger than GATE_WEBHOOK_MAX_BYTES."},
        503: {"description": "The ledger could not commit; MLflow tries again."},
    },
)
async def receive(request: Request) -> Response:
    """Take in one of MLflow's webhook deliveries; 202 once it is committed."""
    door: Door = request.app.state.door
    with door.metrics.delivery_seconds.time(), _counted(door.metrics):
        body = await _body(request, door.max_body_bytes)
        delivery = verify_delivery(request.headers, body, door.secrets, door.clock(), door.tolerance_s)
        # Only what is signed begins a trace: a stranger could fill the collector.
        with tracing.span("delivery", root=True, kind="server", delivery=delivery.id) as begun:
            result = await run_in_threadpool(take_in, door, delivery, parse_event(delivery))
            begun.tell(result=result)
            door.metrics.deliveries.labels(result).inc(exemplar=tracing.exemplar())
    status = ANSWERS[result]
    return Response(status_code=204) if status == 204 else JSONResponse({"result": result}, status)


async def _body(request: Request, limit: int) -> bytes:
    """The raw body, read no further than the limit, whatever length was announced."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Oversized(f"expected a body of at most {limit} bytes, found more (GATE_WEBHOOK_MAX_BYTES)")
    return bytes(body)


@contextmanager
def _counted(metrics: Metrics) -> Iterator[None]:
    try:
        yield
    except GateError as error:
        metrics.deliveries.labels(_refusal(error)).inc()
        raise


def _refusal(error: GateError) -> str:
    match error:
        case Oversized():
            return "oversized"
        case Unverified():
            return "unverified"
        case InvalidInput():
            return "malformed"
        case Unavailable():
            return "unavailable"
        case _:
            return "failed"
