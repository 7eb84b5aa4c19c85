"""What a scrape tells of the ledger: each thing once, whoever was killed or restarted in between."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from builders import a_verdict, a_version
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gate.adapters.ledger_metrics import DRIFTED, EXPIRY, LedgerCollector
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.dispatcher.promotions import Drift
from gate.domain.errors import InvalidInput, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import CPU_QUEUE, GPU_QUEUE, MEASURE, PROFILE, inspect_key, judge_key
from gate.domain.records import Claim, JobRequest
from gate.domain.verdict import Outcome

LEASE_S = 60.0


def scraped(ledger: SqlLedger, now: float) -> dict[str, float]:
    """Every sample of the text that a scraper gets, as ``name{label="value"}``."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(lambda: ledger.backlog(now), lambda: ledger.statistics(now)))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {shown(s.name, s.labels): s.value for family in families for s in family.samples}


def shown(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


@dataclass
class Desk:
    """A ledger, and API processes that come and go."""

    url: str
    ledger: SqlLedger

    def scrape(self, now: float = 10_000.0) -> dict[str, float]:
        """What a new API process tells, which must be what the one at work tells."""
        newcomer = SqlLedger(self.url)
        told = scraped(newcomer, now)
        newcomer.close()
        assert told == scraped(self.ledger, now)
        return told

    def claimed(self, key: str, now: float) -> Claim:
        claim = self.ledger.claim(key, f"worker of {key} at {now}", LEASE_S, now)
        assert claim is not None
        return claim

    def runs(self) -> dict[tuple[str, str], int]:
        return dict(self.ledger.statistics(10_000.0).runs)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    migrate(database_url)
    ledger = SqlLedger(database_url)
    yield Desk(database_url, ledger)
    ledger.close()


def ask(desk: Desk, key: str, now: float, kind: str = MEASURE, queue: str = GPU_QUEUE) -> None:
    desk.ledger.enqueue([JobRequest(key, kind, queue)], now)


def judged(desk: Desk, name: str, asked: float, ended: float, outcome: Outcome, **figures: float | bool) -> None:
    request = EvaluationRequest.of(a_version(name=name), "default", "d" * 64)
    desk.ledger.request_evaluation(request, asked)
    desk.ledger.finish(desk.claimed(inspect_key(request.key), asked), asked)
    claim = desk.claimed(judge_key(request.key), ended)
    desk.ledger.save_verdict(claim, request.key, a_verdict(outcome=outcome), {"payload": ""}, ended, **figures)
    desk.ledger.finish(claim, ended)


def test_each_run_is_counted_once_with_its_wait_and_its_seconds(desk: Desk) -> None:
    ask(desk, "a", 1000.0)
    ask(desk, "b", 1000.0, PROFILE)
    desk.ledger.finish(desk.claimed("a", 1004.0), 1104.0)
    desk.ledger.finish(desk.claimed("b", 1040.0), 1040.25)
    told = desk.scrape()
    assert told['gate_job_runs_total{kind="measure",outcome="done"}'] == 1
    assert told['gate_queue_wait_seconds_bucket{le="1.0",queue="gpu"}'] == 0
    assert told['gate_queue_wait_seconds_bucket{le="5.0",queue="gpu"}'] == 1
    assert told['gate_queue_wait_seconds_count{queue="gpu"}'] == 2
    assert told['gate_queue_wait_seconds_sum{queue="gpu"}'] == 44
    assert told['gate_job_seconds_bucket{kind="measure",le="60.0"}'] == 0
    assert told['gate_job_seconds_bucket{kind="measure",le="300.0"}'] == 1
    assert told['gate_job_seconds_sum{kind="profile"}'] == 0.25
    assert told['gate_compute_seconds_total{queue="gpu"}'] == 100.25
    assert told['gate_compute_seconds_total{queue="cpu"}'] == 0


def test_a_worker_that_was_killed_is_counted_once_whoever_finds_it_first(desk: Desk) -> None:
    for key in ("told", "swept", "taken"):
        ask(desk, key, 1000.0)
    lost = {key: desk.claimed(key, 1000.0) for key in ("told", "swept", "taken")}
    assert desk.ledger.abandon("worker of told at 1000.0", 1010.0, error="killed by signal 9", max_attempts=4)
    assert not desk.ledger.abandon("worker of told at 1000.0", 1011.0, error="killed by signal 9", max_attempts=4)
    desk.claimed("taken", 1070.0)
    for _ in range(2):
        desk.ledger.sweep(1070.0, ring_after_s=15.0, max_attempts=4)
    assert desk.runs() == {("measure", "lost"): 3}
    with pytest.raises(Exception, match="given to somebody else"):
        desk.ledger.finish(lost["swept"], 1080.0)
    for key in ("told", "swept"):
        desk.ledger.finish(desk.claimed(key, 1080.0), 1090.0)
    assert desk.runs() == {("measure", "lost"): 3, ("measure", "done"): 2}
    # 10 s of one, 70 s of each of two, and what the successors of two took.
    assert desk.scrape()['gate_compute_seconds_total{queue="gpu"}'] == 170


def test_waiting_putting_off_and_running_out_of_memory_are_told_apart(desk: Desk) -> None:
    for key in ("waits", "outage", "memory", "error", "fails"):
        ask(desk, key, 1000.0)
    needed = JobRequest("needed", PROFILE, GPU_QUEUE)
    desk.ledger.wait(desk.claimed("waits", 1000.0), 1001.0, needed)
    desk.ledger.retry(desk.claimed("outage", 1000.0), 1001.0, error="Unavailable: MLflow", delay_s=5, outage=True)
    full = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    desk.ledger.retry(desk.claimed("memory", 1000.0), 1001.0, error=full, delay_s=5)
    desk.ledger.retry(desk.claimed("error", 1000.0), 1001.0, error="ValueError: x", delay_s=5)
    desk.ledger.fail(desk.claimed("fails", 1000.0), 1001.0, error="NotMeasurable: x")
    outcomes = {outcome: count for (_, outcome), count in desk.runs().items()}
    assert outcomes == {"waits": 1, "put_off": 1, "out_of_memory": 1, "retried": 1, "failed": 1}


def test_a_job_put_off_does_not_count_the_pause_as_a_wait(desk: Desk) -> None:
    ask(desk, "a", 1000.0)
    desk.ledger.retry(desk.claimed("a", 1000.0), 1000.0, error="x", delay_s=300.0)
    desk.claimed("a", 1302.0)
    assert desk.scrape()['gate_queue_wait_seconds_sum{queue="gpu"}'] == 2


def test_verdicts_are_counted_with_the_time_they_took_and_what_dry_run_let_through(desk: Desk) -> None:
    judged(desk, "one", 1000.0, 1200.0, Outcome.APPROVED, basin_position=0.25)
    judged(desk, "two", 2000.0, 5000.0, Outcome.BLOCKED, basin_position=4.0)
    judged(desk, "three", 3000.0, 3003.0, Outcome.BLOCKED, dry_run=True)
    judged(desk, "four", 3000.0, 3003.0, Outcome.APPROVED, dry_run=True)
    desk.ledger.request_evaluation(EvaluationRequest.of(a_version(name="open"), "default", "d" * 64), 9000.0)
    told = desk.scrape(now=9500.0)
    assert [told[f'gate_verdicts_total{{outcome="{o}"}}'] for o in Outcome] == [2, 2, 0, 0]
    assert told['gate_would_blocks_total{outcome="blocked"}'] == 1
    assert 'gate_would_blocks_total{outcome="approved"}' not in told
    assert told['gate_time_to_verdict_seconds_bucket{le="5.0"}'] == 2
    assert told['gate_time_to_verdict_seconds_bucket{le="300.0"}'] == 3
    assert told['gate_time_to_verdict_seconds_bucket{le="3600.0"}'] == 4
    assert told["gate_time_to_verdict_seconds_sum"] == 3206
    assert told['gate_basin_position_ratio_bucket{le="0.3"}'] == 1
    assert told["gate_basin_position_ratio_count"] == 2
    assert told["gate_oldest_evaluation_seconds"] == 500


def test_an_evaluation_that_could_not_be_judged_is_an_error_with_its_time(desk: Desk) -> None:
    request = EvaluationRequest.of(a_version(), "default", "d" * 64)
    desk.ledger.request_evaluation(request, 1000.0)
    desk.ledger.finish(desk.claimed(inspect_key(request.key), 1000.0), 1000.0)
    desk.ledger.fail(desk.claimed(judge_key(request.key), 1001.0), 1004.0, error="no key to sign with")
    told = desk.scrape()
    assert told['gate_verdicts_total{outcome="error"}'] == 1
    assert told['gate_time_to_verdict_seconds_bucket{le="5.0"}'] == 1


def test_a_bypass_is_counted_once_until_it_is_undone_though_a_new_dispatcher_tells_of_it_again(desk: Desk) -> None:
    place = {"alias": "champion", "version": "models:/m/1"}
    for event in ("promoted without approval",) * 2 + ("alias restored", "promoted without approval"):
        desk.ledger.audit(event, "dispatcher", place, 1000.0)
        desk.scrape()
    desk.ledger.audit("promoted without approval", "dispatcher", place | {"version": "models:/m/2"}, 1000.0)
    told = desk.scrape()
    assert told['gate_bypasses_total{approval="unapproved"}'] == 3
    assert told['gate_reverts_total{result="restored"}'] == 1
    assert told['gate_reverts_total{result="removed"}'] == 0


def test_every_kind_of_drift_is_counted(desk: Desk) -> None:
    for drift in Drift:
        desk.ledger.audit(drift.value, "dispatcher", {"stage": "Production", "version": "models:/m/1"}, 1000.0)
    desk.ledger.audit("stage removed", "dispatcher", {"stage": "Production", "version": "models:/m/1"}, 1000.0)
    told = desk.scrape()
    counted = [
        told[f'gate_bypasses_total{{approval="{a}"}}']
        for a in ("unapproved", "revoked", "withdrawn", "expired", "break_glass")
    ]
    assert counted == [1] * len(Drift)
    assert told['gate_reverts_total{result="removed"}'] == 1


def test_the_first_webhook_is_no_repair(desk: Desk) -> None:
    events = ("webhook created", "webhook repaired", "webhook created")
    for event in events:
        desk.ledger.audit(event, "dispatcher", {"url": "http://gate"}, 1000.0)
    told = desk.scrape()
    assert [told[f'gate_webhook_repairs_total{{result="{r}"}}'] for r in ("created", "repaired")] == [1, 1]


def test_what_was_last_seen_outside_is_told_and_what_is_not_there_is_absent(desk: Desk) -> None:
    assert "gate_drifted_promotions" not in desk.scrape()
    desk.ledger.keep_figures({DRIFTED: 2, EXPIRY: 5000.0}, 1000.0)
    desk.ledger.keep_figures({DRIFTED: 0, EXPIRY: None}, 1001.0)
    told = desk.scrape()
    assert told["gate_drifted_promotions"] == 0
    assert "gate_approval_expiry_timestamp_seconds" not in told


def test_every_queue_state_and_outcome_is_told_before_anything_happened(desk: Desk) -> None:
    told = desk.scrape()
    assert told['gate_jobs{queue="gpu",state="queued"}'] == 0
    assert told['gate_oldest_job_seconds{queue="cpu"}'] == 0
    assert told['gate_verdicts_total{outcome="error"}'] == 0
    assert told['gate_job_runs_total{kind="judge",outcome="out_of_memory"}'] == 0
    assert told["gate_ledger_up"] == 1
    ask(desk, "a", 1000.0, PROFILE, CPU_QUEUE)
    assert desk.scrape()['gate_jobs{queue="cpu",state="queued"}'] == 1


@pytest.mark.parametrize("error", [Unavailable("away"), InvalidInput("odd")])
def test_a_ledger_that_does_not_answer_is_all_that_is_told(error: Exception) -> None:
    def away() -> None:
        raise error

    families = list(LedgerCollector(away, away).collect())
    assert [(s.name, s.value) for family in families for s in family.samples] == [("gate_ledger_up", 0)]
