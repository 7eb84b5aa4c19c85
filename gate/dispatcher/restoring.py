"""Undoing a promotion made around the gate: the place goes back to who last held it with an approval, or is emptied."""

from collections.abc import Callable

import structlog

from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.standing import Standing
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import Action, RemoveAlias, SetAlias, SetStage
from gate.domain.errors import GateError, NotFound
from gate.domain.promotion import NO_STAGE, Holding
from gate.domain.verdict import Outcome
from gate.ports import Registry

log = structlog.get_logger(__name__)


class Restorer:
    """Keeps in mind who held a place with an approval, and gives it back to them."""

    def __init__(
        self, standing: Standing, registry: Registry, clock: Callable[[], float], metrics: DispatcherMetrics
    ) -> None:
        self._standing, self._registry, self._clock, self._metrics = standing, registry, clock, metrics
        self._kept: dict[str, str] = {}

    def keep(self, held: Holding, version: ModelVersion) -> None:
        """Remember a holder with an approval, in the ledger too."""
        place = f"{held.name}\0{held.key}"
        if self._kept.get(place) != version.identity:
            self._standing.ledger.save_promotion(held.key, version, self._clock())
            self._kept[place] = version.identity

    def restore(self, held: Holding, version: ModelVersion) -> bool:
        """Give the place back to the last holder with an approval, or take it from this one; whether that was done."""
        target = self._last_approved(held)
        if target is None:
            return self._attempt(held, version, "removed", ((version, _vacate(held)),))
        # A stage has room for several: the one that does not belong there leaves first.
        leave = ((version, _vacate(held)),) if held.kind == "stage" else ()
        return self._attempt(held, version, "restored", (*leave, (target, _occupy(held))))

    def take_off(self, held: Holding, version: ModelVersion) -> bool:
        """Take the place from a version whose approval expired."""
        return self._attempt(held, version, "expired", ((version, _vacate(held)),))

    def _attempt(
        self, held: Holding, version: ModelVersion, result: str, acts: tuple[tuple[ModelVersion, Action], ...]
    ) -> bool:
        """The other places must not wait for one that the registry refuses to change; it stays counted as drift."""
        try:
            for subject, action in acts:
                self._registry.apply(subject, (action,))
        except GateError as error:
            log.warning("promotion could not be undone", place=held.key, version=version.uri, error=str(error))
            self._metrics.failed_reverts.inc()
            return False
        log.warning("promotion undone", place=held.key, version=version.uri, result=result)
        detail = {held.kind: held.place, "version": version.identity}
        self._standing.ledger.audit(f"{held.kind} {result}", "dispatcher", detail, self._clock())
        return True

    def _last_approved(self, held: Holding) -> ModelVersion | None:
        kept = self._standing.ledger.promotion(held.name, held.key)
        if kept is None:
            return None
        try:
            now = self._registry.version(kept.name, kept.version)
        except NotFound:
            return None
        return now if now.identity == kept.identity and self.approved(now) else None

    def approved(self, version: ModelVersion) -> bool:
        """Whether it has an approval in force; being allowed in dry run is none."""
        answer = self._standing.answer(version, self._clock())
        return answer.allowed and answer.outcome is Outcome.APPROVED


def _vacate(held: Holding) -> Action:
    return RemoveAlias(held.place) if held.kind == "alias" else SetStage(NO_STAGE)


def _occupy(held: Holding) -> Action:
    return SetAlias(held.place) if held.kind == "alias" else SetStage(held.place)
