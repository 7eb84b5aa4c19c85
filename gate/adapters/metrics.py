"""Every Prometheus series of the product, declared once. Labels are closed sets; never a model's name."""

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gate.domain.errors import GateError
from gate.ports import Backlog

JOB_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The series that are counted as things happen, and the process's own, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.deliveries = Counter(
            "gate_deliveries",
            "Webhook deliveries by result: accepted, repeated, ignored, ping, unverified, malformed, oversized, unavailable.",
            ["result"],
            registry=registry,
        )
        self.delivery_seconds = Histogram(
            "gate_delivery_seconds",
            "Seconds from a delivery's arrival to its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.promotion_questions = Counter(
            "gate_promotion_questions", "Answers to POST /v1/promotions: allow, deny.", ["answer"], registry=registry
        )
        self.admissions = Counter(
            "gate_admissions",
            "Kubernetes admission reviews by answer: allow, deny, warn, unconcerned (no model reference in it).",
            ["answer"],
            registry=registry,
        )
        self.promotion_attempts = Counter(
            "gate_promotion_attempts",
            "Protected aliases that MLflow told were set: approved, unapproved.",
            ["version"],
            registry=registry,
        )
        self.doorbells = Counter("gate_doorbells", "Doorbells by result: rung, failed.", ["result"], registry=registry)
        self.projections = Counter(
            "gate_projections",
            "Verdicts written to MLflow by result: written, moot, failed.",
            ["result"],
            registry=registry,
        )
        self.reconciliations = Counter(
            "gate_reconciliations", "Reconciler sweeps by result: done, failed.", ["result"], registry=registry
        )
        self.reconciled_at = Gauge(
            "gate_reconciled_timestamp_seconds",
            "When the reconciler last compared ledger and registry.",
            registry=registry,
        )
        self.missed_versions = Counter(
            "gate_missed_versions", "Versions found by the reconciler that no delivery had told of.", registry=registry
        )
        self.drifted = Gauge(
            "gate_drifted_promotions",
            "Protected aliases and stages held by versions without an approval.",
            registry=registry,
        )
        self.changed = Gauge(
            "gate_changed_artifacts",
            "Promoted versions whose files are not those that were judged, by their names and sizes.",
            registry=registry,
        )
        self.undone = Counter(
            "gate_undone_promotions",
            "Protected aliases that the gate itself moved: restored, removed, expired, failed.",
            ["result"],
            registry=registry,
        )
        self.webhook_repairs = Counter(
            "gate_webhook_repairs",
            "Times the webhook was missing, changed or disabled and was mended.",
            registry=registry,
        )
        self.leader = Gauge("gate_dispatcher_leader", "Whether this dispatcher is the one at work.", registry=registry)


class JobMetrics:
    """The series of a worker process: how its jobs went and how long they took."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.runs = Counter(
            "gate_job_runs",
            "Runs of jobs by outcome: done, waits, retried, failed, lost, unavailable.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "gate_job_seconds", "Seconds a run of a job took.", ["kind"], buckets=JOB_SECONDS, registry=registry
        )

    def observe(self, kind: str, outcome: str, seconds: float) -> None:
        """Counts one run."""
        self.runs.labels(kind, outcome).inc()
        self.seconds.labels(kind).observe(seconds)


class BacklogCollector(Collector):
    """What waits in the ledger, asked for at each scrape; absent while the ledger does not answer."""

    def __init__(self, backlog: Callable[[], Backlog]) -> None:
        self._backlog = backlog

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing beforehand, so that registering does not ask the ledger."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("gate_ledger_up", "Whether the ledger answered this scrape.")
        try:
            backlog = self._backlog()
        except GateError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _families(backlog)


def _families(backlog: Backlog) -> Iterator[GaugeMetricFamily]:
    jobs = GaugeMetricFamily("gate_jobs", "Jobs by queue and state.", labels=["queue", "state"])
    for (queue, state), count in sorted(backlog.jobs.items()):
        jobs.add_metric([queue, state], count)
    yield jobs
    oldest = GaugeMetricFamily("gate_oldest_job_seconds", "Age of a queue's oldest queued job.", labels=["queue"])
    for queue, seconds in sorted(backlog.oldest_s.items()):
        oldest.add_metric([queue], seconds)
    yield oldest
    expired = GaugeMetricFamily("gate_expired_leases", "Running jobs whose worker has let its lease end.")
    expired.add_metric([], backlog.expired_leases)
    yield expired
    outbox = GaugeMetricFamily("gate_outbox_items", "Things still to be done outside the ledger.", labels=["kind"])
    for kind, count in sorted(backlog.outbox.items()):
        outbox.add_metric([kind], count)
    yield outbox
    verdicts = GaugeMetricFamily("gate_evaluations_ended", "Ended evaluations by outcome.", labels=["outcome"])
    for outcome, count in sorted(backlog.outcomes.items()):
        verdicts.add_metric([outcome], count)
    yield verdicts
