"""The series that a process counts by itself: they begin anew with it, and are right for what only it can know.

What the ledger knows is computed from the ledger (``ledger_metrics``). Labels are closed sets; never a model's name.
"""

from collections import Counter as Counts
from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from gate.adapters import tracing
from gate.domain.jobs import KINDS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ENFORCEMENTS = ("enforce", "dry_run")
DELIVERIES = (
    "accepted",
    "repeated",
    "ignored",
    "ping",
    "unverified",
    "malformed",
    "oversized",
    "unavailable",
    "failed",
)


class Metrics:
    """The series of an API process, in a registry of their own; ``create_app`` adds those of the ledger."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("gate_build", "The version of Basin Gate.", registry=registry).info({"version": version("basin-gate")})
        self.deliveries = _counter(registry, "gate_deliveries", "Webhook deliveries by result", "result", *DELIVERIES)
        self.delivery_seconds = Histogram(
            "gate_delivery_seconds",
            "Seconds from a delivery's arrival to its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.promotion_questions = _counter(
            registry, "gate_promotion_questions", "Answers to POST /v1/promotions", "answer", "allow", "deny"
        )
        self.admissions = _counter(
            registry,
            "gate_admissions",
            "Kubernetes admission reviews; unconcerned has no model reference in it",
            "answer",
            *("allow", "deny", "warn", "unconcerned"),
        )
        self.promotion_attempts = _counter(
            registry,
            "gate_promotion_attempts",
            "Protected aliases that MLflow told were set, on versions",
            "version",
            *("approved", "unapproved"),
        )
        self.policies = Gauge(
            "gate_policies",
            "Policies in force by enforcement: enforce, dry_run (judges and holds nothing back).",
            ["enforcement"],
            registry=registry,
        )
        for enforcement in ENFORCEMENTS:
            self.policies.labels(enforcement)
        self.replace_key_by = Gauge(
            "gate_signing_key_replace_by_timestamp_seconds",
            "When the signing key is to be replaced at the latest (GATE_SIGNING_KEY_REPLACE_BY); absent where not set.",
            [],
            registry=None,
        )

    def tell_policies(self, enforcements: Iterable[str]) -> None:
        """Tells how many of the policies in force hold something back."""
        counts = Counts(enforcements)
        for enforcement in ENFORCEMENTS:
            self.policies.labels(enforcement).set(counts[enforcement])

    def remind_of_key(self, timestamp_s: float) -> None:
        """Tells from now on when the signing key is to be replaced."""
        self.replace_key_by.set(timestamp_s)
        self.registry.register(self.replace_key_by)


class DispatcherMetrics:
    """The series of a dispatcher process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.doorbells = _counter(registry, "gate_doorbells", "Doorbells", "result", "rung", "failed")
        self.projections = _counter(
            registry, "gate_projections", "Verdicts written to MLflow", "result", "written", "moot", "failed"
        )
        self.notifications = _counter(
            registry, "gate_notifications", "Messages to channels", "result", "sent", "failed"
        )
        self.reconciliations = _counter(
            registry, "gate_reconciliations", "Reconciler sweeps", "result", "done", "failed"
        )
        self.missed_versions = Counter(
            "gate_missed_versions", "Versions found by the reconciler that no delivery had told of.", registry=registry
        )
        self.reopened_verdicts = Counter(
            "gate_reopened_verdicts",
            "Verdicts opened again because their base or suite became another.",
            registry=registry,
        )
        self.failed_reverts = Counter(
            "gate_failed_reverts",
            "Times that MLflow refused to let the gate move a protected alias.",
            registry=registry,
        )
        self.leader = Gauge("gate_dispatcher_leader", "Whether this dispatcher is the one at work.", registry=registry)


class WorkerMetrics:
    """The series of a worker process: what only it knows, since the ledger did not answer."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._runs = Counter(
            "gate_worker_runs",
            "Jobs that this process ran: done, waits, retried, failed, lost, or unavailable (the end was not written).",
            ["kind", "outcome"],
            registry=registry,
        )
        for kind in KINDS:
            self._runs.labels(kind, "done")

    def observe(self, kind: str, outcome: str, _seconds: float) -> None:
        """Counts one run."""
        self._runs.labels(kind, outcome).inc(exemplar=tracing.exemplar())


def _counter(registry: CollectorRegistry, name: str, meaning: str, label: str, *values: str) -> Counter:
    """A counter with a sample for each of its label's values from the beginning: a first event is an increase."""
    counter = Counter(name, f"{meaning}: {', '.join(values)}.", [label], registry=registry)
    for value in values:
        counter.labels(value)
    return counter
