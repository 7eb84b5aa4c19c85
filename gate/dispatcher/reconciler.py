"""The registry compared with the ledger: what no webhook told, what was moved behind the gate's back."""

from collections.abc import Callable, Iterator

import structlog

from gate.adapters.ledger_metrics import RECONCILED_AT
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.signing import Verifier
from gate.adapters.standing import Standing
from gate.dispatcher.promotions import PromotionWatch
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_VERDICT
from gate.domain.errors import GateError
from gate.ports import Registry
from gate.settings import Settings

WEBHOOK_PATH = "/webhooks/mlflow"
FULL_EVERY = 20
"""Each so many sweeps every version is looked at, hidden ones too; between them those made lately."""
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
        self._asked: set[str] = set()
        self._watch = PromotionWatch(standing, registry, clock, metrics, _verifier(settings))

    def reconcile(self) -> bool:
        """One sweep; whether every part of it could be done."""
        # Each part is tried, whatever became of the one before it.
        failures = [self._attempt(part) for part in (self._webhook, self._versions, self._promotions)].count(False)
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

    def _versions(self) -> None:
        full = self._sweeps % FULL_EVERY == 0
        since_ms = 0 if full else int(1000 * self._clock()) - OVERLAP_MS - int(2000 * self._settings.reconcile_every_s)
        for version in self._seen(since_ms, full):
            self._ask(version)
            if full:
                self._mend(version)

    def _seen(self, since_ms: int, full: bool) -> Iterator[ModelVersion]:
        yield from self._registry.versions(since_ms)
        if full:
            yield from self._registry.hidden_versions()

    def _ask(self, version: ModelVersion) -> None:
        request = self._standing.request(version)
        if request is None or request.key in self._asked:
            return
        if self._standing.ledger.request_evaluation(request, self._clock()):
            self._metrics.missed_versions.inc()
            log.info("version found by the reconciler", version=version.uri, evaluation=request.key)
        self._asked.add(request.key)

    def _mend(self, version: ModelVersion) -> None:
        """Have a verdict written again whose tags were changed or deleted by somebody else."""
        policy = self._standing.policy(version)
        row = self._standing.ledger.evaluation_of(version.identity, policy.digest) if policy else None
        if row is None or row.outcome is None or not row.projected:
            return
        if version.tags.get(TAG_VERDICT) != row.outcome or TAG_ATTESTATION not in version.tags:
            self._standing.ledger.project(row.request.key, self._clock())
            self._audit("projection mended", {"version": version.identity})

    def _promotions(self) -> None:
        self._watch.look(stages=self._sweeps % FULL_EVERY == 0)

    def _audit(self, event: str, detail: dict[str, str]) -> None:
        self._standing.ledger.audit(event, "dispatcher", detail, self._clock())


def _verifier(settings: Settings) -> Verifier | None:
    """The trusted keys, where there are any: without them, only the ledger says what was approved."""
    try:
        return Verifier.from_file(settings.trusted_keys_file) if settings.trusted_keys_file else None
    except GateError as error:
        log.warning("trusted keys cannot be read", error=str(error))
        return None
