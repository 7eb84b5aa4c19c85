"""The series that are computed from the ledger at each scrape; every API process tells the same of them.

So they outlive every worker, dispatcher and API, and a process that dies neither loses nor doubles a count. Where
several API processes are scraped, take the ``max`` of them, never the ``sum``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gate.adapters import ledger_glass, ledger_runs
from gate.adapters.ledger_evaluations import SUPERSEDED
from gate.adapters.ledger_outbox import DOORBELL, PROJECT
from gate.adapters.ledger_statistics import BYPASSES, OPENINGS, REPAIRS, REVERTS
from gate.adapters.ledger_tables import DONE, FAILED, QUEUED, RUNNING, WAITING
from gate.adapters.ledger_tallies import POSITIONS, RUN_S, TO_VERDICT_S, WAIT_S
from gate.domain.errors import GateError
from gate.domain.jobs import KINDS, QUEUES
from gate.domain.records import Backlog, Statistics, Tally, TracedVerdict, WaiverState
from gate.domain.selfcheck import Check, Control
from gate.domain.verdict import Outcome

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

STATES = (WAITING, QUEUED, RUNNING, DONE, FAILED)
NOTHING = Tally({}, 0, 0.0)
# What the dispatcher sees of the registry and leaves in the ledger: name of the figure, of the series, and its meaning.
RECONCILED_AT, DRIFTED, CHANGED, EXPIRY = "reconciled_at", "drifted", "changed", "approval_expiry"
SELFCHECK_DUE = "selfcheck_due"
FIGURES = {
    RECONCILED_AT: (
        "gate_reconciled_timestamp_seconds",
        "When the reconciler last compared ledger and registry, whole and without a failure.",
    ),
    DRIFTED: ("gate_drifted_promotions", "Protected aliases and stages held by versions without an approval."),
    CHANGED: (
        "gate_changed_artifacts",
        "Promoted versions whose files are not those that were judged, by their names and sizes.",
    ),
    EXPIRY: (
        "gate_approval_expiry_timestamp_seconds",
        "When the first of the approvals ends that protected aliases rest on; absent where there is none.",
    ),
    SELFCHECK_DUE: (
        "gate_selfcheck_due_timestamp_seconds",
        "When the gate will not have been checked for too long on some base; absent where no check is scheduled.",
    ),
}


class LedgerCollector(Collector):
    """Asks the ledger at each scrape; only ``gate_ledger_up`` is told while it does not answer."""

    def __init__(self, backlog: Callable[[], Backlog], statistics: Callable[[], Statistics]) -> None:
        self._backlog, self._statistics = backlog, statistics

    def describe(self) -> Iterable[Family]:
        """Nothing beforehand, so that registering does not ask the ledger."""
        return ()

    def collect(self) -> Iterator[Family]:
        up = GaugeMetricFamily("gate_ledger_up", "Whether the ledger answered this scrape.")
        try:
            backlog, statistics = self._backlog(), self._statistics()
        except GateError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _waiting(backlog)
        yield from _work(statistics)
        yield from _verdicts(statistics)
        yield from _enforcement(statistics)
        yield _controls(statistics)
        yield from _waivers(statistics)
        meaning = (
            "Broken glasses: in_force (a version can be promoted against its verdict), unreviewed, overdue for it."
        )
        yield _gauge("gate_break_glass", meaning, "state", ledger_glass.STATES, statistics.glasses)


def empty_ledger() -> LedgerCollector:
    """Tells of a ledger in which nothing has happened: what series there are."""
    figures = dict.fromkeys(FIGURES, 0.0)
    nothing = Statistics({}, {}, {}, {}, {}, {}, NOTHING, NOTHING, 0.0, {}, figures, waiver_expiry=0.0)
    return LedgerCollector(lambda: Backlog({}, {}, 0, {}), lambda: nothing)


def _waiting(backlog: Backlog) -> Iterator[Family]:
    jobs = GaugeMetricFamily("gate_jobs", f"Jobs by queue and state: {', '.join(STATES)}.", labels=["queue", "state"])
    # Every state of each queue that there is: a queue whose last worker has gone has none running, which an alert looks at.
    queues = {*QUEUES, *(queue for queue, _ in backlog.jobs)}
    for pair in sorted({(queue, state) for queue in queues for state in STATES} | set(backlog.jobs)):
        jobs.add_metric(pair, backlog.jobs.get(pair, 0))
    yield jobs
    yield _gauge(
        "gate_oldest_job_seconds", "How long a queue's oldest due job has waited.", "queue", QUEUES, backlog.oldest_s
    )
    expired = GaugeMetricFamily("gate_expired_leases", "Running jobs whose worker has let its lease end.")
    expired.add_metric([], backlog.expired_leases)
    yield expired
    yield _gauge(
        "gate_outbox_items",
        "Things still to be done outside the ledger: doorbell (tell a worker), project (write to MLflow).",
        "kind",
        (DOORBELL, PROJECT),
        backlog.outbox,
    )


def _work(seen: Statistics) -> Iterator[Family]:
    runs = CounterMetricFamily(
        "gate_job_runs",
        f"Ended runs of jobs by kind and outcome: {', '.join(ledger_runs.OUTCOMES)}.",
        labels=["kind", "outcome"],
    )
    for pair in sorted({(kind, outcome) for kind in KINDS for outcome in ledger_runs.OUTCOMES} | set(seen.runs)):
        runs.add_metric(pair, seen.runs.get(pair, 0))
    yield runs
    waits = "Seconds from when a job was due to when a worker began it."
    yield _histogram("gate_queue_wait_seconds", waits, WAIT_S, seen.waits, "queue", QUEUES)
    yield _histogram("gate_job_seconds", "Seconds a run of a job took.", RUN_S, seen.run_seconds, "kind", KINDS)
    compute = "Seconds that workers of a queue spent on jobs, those that came to nothing included."
    yield _counter("gate_compute_seconds", compute, "queue", QUEUES, seen.compute_s)


def _verdicts(seen: Statistics) -> Iterator[Family]:
    verdicts = [str(outcome) for outcome in Outcome]
    outcomes = [*verdicts, SUPERSEDED]
    yield _counter(
        "gate_verdicts", f"Evaluations that ended: {', '.join(outcomes)}.", "outcome", outcomes, seen.outcomes
    )
    refusals = [outcome for outcome in verdicts if outcome != Outcome.APPROVED]
    would_be = "Verdicts under a policy in dry run that would have kept a version back, by outcome."
    withheld = {outcome: count for outcome, count in seen.would_be.items() if outcome in refusals}
    yield _counter("gate_would_blocks", would_be, "outcome", refusals, withheld)
    took = "Seconds from when an evaluation was asked for to its end."
    to_verdict = _histogram("gate_time_to_verdict_seconds", took, TO_VERDICT_S, {"": seen.to_verdict})
    _lead_to_traces(to_verdict, seen.traces)
    yield to_verdict
    oldest = GaugeMetricFamily("gate_oldest_evaluation_seconds", "Age of the oldest evaluation that has not ended.")
    oldest.add_metric([], seen.oldest_open_s)
    yield oldest
    positions = "How far out judged candidates are in their base's basin: 0 at the base, 1 at the edge."
    yield _histogram("gate_basin_position_ratio", positions, POSITIONS, {"": seen.basin_positions})


def _lead_to_traces(histogram: Family, traces: Sequence[TracedVerdict]) -> None:
    """Gives each bucket the newest trace that belongs into it; scrapers that ask for OpenMetrics get to see them."""
    left = sorted(traces, key=lambda each: each.at, reverse=True)
    lower = float("-inf")
    for place, sample in enumerate(histogram.samples):
        if not sample.name.endswith("_bucket"):
            continue
        upper = float(sample.labels["le"])
        newest = next((each for each in left if lower < each.seconds <= upper), None)
        if newest is not None:
            leads = Exemplar({"trace_id": newest.trace_id}, newest.seconds, newest.at)
            histogram.samples[place] = sample._replace(exemplar=leads)
        lower = upper


def _enforcement(seen: Statistics) -> Iterator[Family]:
    kinds: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
        ("gate_bypasses", "Protected places found held without an approval in force", "approval", BYPASSES),
        ("gate_reverts", "Protected aliases and stages that the gate itself gave back or took away", "result", REVERTS),
        ("gate_webhook_repairs", "Times the webhook was missing or altered and was mended", "result", REPAIRS),
        ("gate_fail_opens", "Rules that let a version through by failing open", "because", OPENINGS),
    )
    for name, meaning, label, facts in kinds:
        counts: Counter[str] = Counter(dict.fromkeys(facts.values(), 0))
        for fact, value in facts.items():
            counts[value] += seen.facts.get(fact, 0)
        yield _counter(name, f"{meaning}: {', '.join(counts)}.", label, tuple(counts), counts)
    for figure, (name, meaning) in FIGURES.items():
        gauge = GaugeMetricFamily(name, meaning)
        if figure in seen.figures:
            gauge.add_metric([], seen.figures[figure])
        yield gauge


def _controls(seen: Statistics) -> Family:
    checks = [str(check) for check in Check]
    meaning = f"Planted candidates judged to check the gate, by what they showed: {', '.join(checks)}."
    family = CounterMetricFamily("gate_selfchecks", meaning, labels=["control", "outcome"])
    for pair in sorted({(str(control), check) for control in Control for check in checks} | set(seen.controls)):
        family.add_metric(pair, seen.controls.get(pair, 0))
    return family


def _waivers(seen: Statistics) -> Iterator[Family]:
    states = [str(state) for state in WaiverState]
    yield _gauge("gate_waivers", f"Waivers by state: {', '.join(states)}.", "state", states, seen.waivers)
    ends = GaugeMetricFamily(
        "gate_waiver_expiry_timestamp_seconds",
        "When the first of the granted waivers ends; absent where there is none.",
    )
    if seen.waiver_expiry is not None:
        ends.add_metric([], seen.waiver_expiry)
    yield ends


def _gauge(name: str, meaning: str, label: str, known: Sequence[str], values: Mapping[str, float]) -> Family:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for value in sorted({*known, *values}):
        family.add_metric([value], values.get(value, 0))
    return family


def _counter(name: str, meaning: str, label: str, known: Sequence[str], values: Mapping[str, float]) -> Family:
    """A counter with a sample for each known value from the beginning: a first event is seen as an increase."""
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value in sorted({*known, *values}):
        family.add_metric([value], values.get(value, 0))
    return family


def _histogram(
    name: str,
    meaning: str,
    bounds: Sequence[float],
    tallies: Mapping[str, Tally],
    label: str | None = None,
    known: Sequence[str] = ("",),
) -> Family:
    family = HistogramMetricFamily(name, meaning, labels=[label] if label else [])
    for value in sorted({*known, *tallies}):
        tally = tallies.get(value, NOTHING)
        buckets = [(str(bound), float(tally.at_most.get(bound, 0))) for bound in bounds]
        family.add_metric([value] if label else [], [*buckets, ("+Inf", float(tally.count))], tally.total)
    return family
