"""The registry compared with the ledger: what no webhook told, what was moved behind the gate's back."""

from collections.abc import Callable, Iterator
from itertools import chain

import structlog

from gate.adapters.ledger_metrics import RECONCILED_AT
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.signing import Verifier
from gate.adapters.standing import Standing
from gate.dispatcher.promotions import PromotionWatch
from gate.dispatcher.versions import VersionWatch
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import GateError
from gate.domain.events import WEBHOOK_PATH
from gate.ports import Registry
from gate.settings import Settings

PAGES_A_SWEEP = 4
"""Pages of 1,000 versions read at one sweep, besides those made lately: all of them in turns."""
SHARE = 1 / 3
"""Of the time between sweeps: so much is spent on versions in turn where MLflow or the ledger is slow; the rest waits."""
SHARE_OF_HOLDERS = 1 / 6
"""So much on holders that stayed as they were: one that changed is looked at whatever the time."""
HIDDEN_EVERY = 3
"""Each so many sweeps the versions are looked for that MLflow's own searches leave out."""
OVERLAP_MS = 600_000
log = structlog.get_logger(__name__)


class Reconciler:
    """Asks for what is missing, repairs what the gate wrote, undoes or reports what was promoted around it."""

    def __init__(
        self,
        standing: Standing,
        registry: Registry,
        settings: Settings,
        clock: Callable[[], float],
        metrics: DispatcherMetrics,
    ) -> None:
        self._standing, self._registry, self._settings = standing, registry, settings
        self._clock, self._metrics = clock, metrics
        self._secret_set = False
        self._sweeps = 0
        self._cursor = ""
        self._compared = VersionWatch(standing, clock, metrics)
        self._watch = PromotionWatch(
            standing,
            registry,
            clock,
            metrics,
            _verifier(settings),
            rehash_every_s=settings.rehash_every_s,
            budget_s=settings.reconcile_every_s * SHARE_OF_HOLDERS,
        )

    def reconcile(self) -> bool:
        """One sweep; whether every part of it could be done."""
        # Each part is tried, whatever became of the one before it.
        parts = (self._webhook, self._holders, self._versions, self._promotions)
        failures = [self._attempt(part) for part in parts].count(False)
        sound = failures == 0
        self._metrics.reconciliations.labels("done" if sound else "failed").inc()
        if sound:
            self._sweeps += 1
            now = self._clock()
            self._standing.ledger.keep_figures({RECONCILED_AT: now}, now)
        return sound

    def _attempt(self, part: Callable[[], None]) -> bool:
        try:
            part()
        except GateError as error:
            log.warning("reconciler could not finish", part=part.__name__.strip("_"), error=str(error))
            return False
        return True

    def _webhook(self) -> None:
        secrets = self._settings.secrets_of_webhook()
        if not secrets:
            return
        url = self._settings.public_url.rstrip("/") + WEBHOOK_PATH
        result = self._registry.ensure_webhook(url, secrets[0], renew_secret=not self._secret_set)
        self._secret_set = True
        if result != "kept":
            self._audit("webhook " + result, {"url": url})

    def _holders(self) -> None:
        self._watch.read()

    def _versions(self) -> None:
        self._compared.compare(self._met())

    def _met(self) -> Iterator[ModelVersion]:
        """The versions made lately and those whose turn it is; the watch of promotions is told of each."""
        since_ms = int(1000 * self._clock()) - OVERLAP_MS - int(2000 * self._settings.reconcile_every_s)
        for version in chain(self._registry.versions(since_ms), self._in_turn()):
            self._watch.passed(version)
            yield version

    def _in_turn(self) -> Iterator[ModelVersion]:
        """The versions whose turn it is: so many at each sweep, however many there are."""
        if self._sweeps % HIDDEN_EVERY == 0:
            yield from self._registry.hidden_versions()
        until = self._clock() + self._settings.reconcile_every_s * SHARE
        for _ in range(PAGES_A_SWEEP):
            page, self._cursor = self._registry.versions_page(self._cursor)
            yield from page
            if not self._cursor or self._clock() > until:
                return

    def _promotions(self) -> None:
        self._watch.look()

    def _audit(self, event: str, detail: dict[str, str]) -> None:
        self._standing.ledger.audit(event, "dispatcher", detail, self._clock())


def _verifier(settings: Settings) -> Verifier | None:
    """The trusted keys, where there are any: without them, only the ledger says what was approved."""
    try:
        return Verifier.from_file(settings.trusted_keys_file) if settings.trusted_keys_file else None
    except GateError as error:
        log.warning("trusted keys cannot be read", error=str(error))
        return None
