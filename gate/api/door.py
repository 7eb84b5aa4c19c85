"""What the HTTP handlers need, and what a delivery makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from gate.adapters.metrics import Metrics
from gate.adapters.standing import Standing
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import NotFound, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.events import Delivery, EventKind, RegistryEvent
from gate.domain.jobs import QUEUES
from gate.domain.overview import EvaluationRow
from gate.domain.policy import PolicySet
from gate.ports import Ledger, Registry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """The API's dependencies. ``broker`` raises when the broker does not answer."""

    ledger: Ledger
    registry: Registry
    policies: PolicySet
    secrets: Sequence[str]
    clock: Callable[[], float]
    metrics: Metrics
    broker: Callable[[], None]
    tolerance_s: float = 600.0
    max_body_bytes: int = 1_000_000
    queues: Sequence[str] = QUEUES

    @property
    def standing(self) -> Standing:
        """Where versions stand."""
        return Standing(self.ledger, self.policies)


def take_in(door: Door, delivery: Delivery, event: RegistryEvent) -> str:
    """Commit what a verified delivery asks for; ``accepted``, ``repeated``, ``ignored`` or ``ping``."""
    if event.kind is EventKind.PING:
        return "ping"
    if event.kind is EventKind.VERSION_CREATED:
        return _evaluate(door, delivery, event)
    if event.kind in (EventKind.ALIAS_SET, EventKind.ALIAS_DELETED) and door.standing.guards_alias(event.alias or ""):
        return _promotion(door, delivery, event)
    return "ignored"


def _evaluate(door: Door, delivery: Delivery, event: RegistryEvent) -> str:
    version = _read(door, event)
    if version is not None and version.is_prompt:
        return "ignored"
    return "accepted" if _commit(door, delivery, door.standing.request(version) if version else None) else "repeated"


def _promotion(door: Door, delivery: Delivery, event: RegistryEvent) -> str:
    """A protected alias was moved, through the guard or around it: recorded, and evaluated if it was not."""
    version = _read(door, event) if event.version else None
    if (version is not None and version.is_prompt) or (version is None and event.as_prompt):
        return "ignored"
    request = door.standing.request(version) if version else None
    if request is not None:
        door.ledger.request_evaluation(request, door.clock())
    # Without the request: what counts here is whether the attempt is new, not whether the evaluation is.
    if not _commit(door, delivery, None):
        return "repeated"
    _record_attempt(door, event, version is not None and door.standing.answer(version, door.clock()).allowed)
    return "accepted"


def _record_attempt(door: Door, event: RegistryEvent, allowed: bool) -> None:
    if event.kind is EventKind.ALIAS_SET:
        door.metrics.promotion_attempts.labels("approved" if allowed else "unapproved").inc()
    detail = {"name": event.name, "alias": event.alias, "version": event.version, "approved": allowed}
    door.ledger.audit(f"protected {event.kind.value.replace('_', ' ')}", "mlflow", detail, door.clock())


def _read(door: Door, event: RegistryEvent) -> ModelVersion | None:
    """The version as it is now. ``None`` if it is gone, or MLflow does not answer just now: the delivery is kept all
    the same, and the reconciler looks at every version anyway."""
    try:
        return door.registry.version(event.name, event.version or "")
    except (NotFound, Unavailable) as e:
        log.warning("version not read", model=event.name, version=event.version, error=str(e))
        return None


def _commit(door: Door, delivery: Delivery, request: EvaluationRequest | None) -> bool:
    new = door.ledger.accept_delivery(delivery.id, delivery.body_digest, delivery.body, request, door.clock())
    log.info("delivery", delivery=delivery.id, new=new, evaluation=request.key if request else None)
    return new


def newest_of(door: Door, name: str, version: str) -> EvaluationRow:
    """The newest evaluation of a registered version. Raises `NotFound`."""
    page, offset = 500, 0
    while rows := door.ledger.evaluations(page, offset, name=name):
        for row in rows:
            if row.request.version.version == version:
                return row
        offset += page
    raise NotFound(f"expected an evaluation of version {version} of {name!r}, found none; is it registered in MLflow?")
