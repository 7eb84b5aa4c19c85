"""What a scrape asks of the ledger does not grow with the ledger's history, and counts no less for that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from builders import a_verdict, a_version
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sqlalchemy import event

from gate.adapters import ledger_tallies
from gate.adapters.ledger_metrics import LedgerCollector
from gate.adapters.ledger_tables import evaluation, job_run, tally
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import GPU_QUEUE, MEASURE, inspect_key, judge_key
from gate.domain.records import JobRequest, SignedRevocation
from gate.domain.revocation import Revocation
from gate.domain.verdict import Outcome

NOW = 10_000.0
HISTORY = ("job_run", "evaluation", "job", "audit")


@dataclass
class Desk:
    """A ledger in which every ended row is worth being counted at once."""

    ledger: SqlLedger

    def scrape(self) -> dict[str, float]:
        registry = CollectorRegistry()
        registry.register(LedgerCollector(lambda: self.ledger.backlog(NOW), lambda: self.ledger.statistics(NOW)))
        families = text_string_to_metric_families(generate_latest(registry).decode())
        return {f"{s.name}{sorted(s.labels.items())}": s.value for family in families for s in family.samples}

    def run(self, key: str, begun: float, lasted: float) -> None:
        self.ledger.enqueue([JobRequest(key, MEASURE, GPU_QUEUE)], begun)
        claim = self.ledger.claim(key, "w", 60.0, begun + 0.1)
        assert claim is not None
        self.ledger.finish(claim, begun + 0.1 + lasted)

    def judge(self, name: str, outcome: Outcome = Outcome.APPROVED) -> EvaluationRequest:
        request = EvaluationRequest.of(a_version(name=name), "default", "d" * 64)
        self.ledger.request_evaluation(request, 1000.0)
        inspect = self.ledger.claim(inspect_key(request.key), "w", 60.0, 1001.0)
        assert inspect is not None
        self.ledger.finish(inspect, 1002.0)
        claim = self.ledger.claim(judge_key(request.key), "w", 60.0, 1003.0)
        assert claim is not None
        verdict = a_verdict(subject=request.version.identity, outcome=outcome)
        self.ledger.save_verdict(claim, request.key, verdict, {}, 1003.3, dry_run=True, basin_position=0.37)
        self.ledger.finish(claim, 1003.3)
        return request

    def count(self) -> int:
        return self.ledger._database.write(ledger_tallies.count)

    def rows(self, table: sa.Table, *which: sa.ColumnElement[bool]) -> int:
        wanted = sa.select(sa.func.count()).select_from(table).where(*which)
        return self.ledger._database.read(lambda c: c.execute(wanted).scalar_one())


@pytest.fixture
def desk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(ledger_tallies, "WORTHWHILE", 1)
    migrate(database_url)
    ledger = SqlLedger(database_url)
    yield Desk(ledger)
    ledger.close()


def test_counting_changes_no_number_and_leaves_nothing_to_count(desk: Desk) -> None:
    for place in range(7):
        desk.run(f"m{place}", 1000.0 + place, 0.1 * place)
    desk.judge("one")
    desk.judge("two", Outcome.BLOCKED)
    desk.ledger.enqueue([JobRequest("runs on", MEASURE, GPU_QUEUE)], 1500.0)
    assert desk.ledger.claim("runs on", "w", 60.0, 1502.0)
    before = desk.scrape()
    assert desk.count() == 7 + 2 * 2 + 2
    assert desk.count() == 0
    assert desk.scrape() == before
    assert desk.rows(job_run, job_run.c.counted.is_(None)) == 1
    assert desk.rows(evaluation, evaluation.c.counted.is_(None)) == 0


def test_whatever_is_counted_when_no_number_ever_goes_down(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tallies, "AT_ONCE", 3)
    last: dict[str, float] = {}
    for place in range(12):
        desk.run(f"m{place}", 1000.0 + place / 3, 0.1 + place / 7)
        if place % 2:
            desk.count()
        told = {
            name: value
            for name, value in desk.scrape().items()
            if "_total" in name or "_bucket" in name or "_sum" in name
        }
        assert all(value >= last.get(name, 0.0) for name, value in told.items())
        last = told
    assert last["gate_queue_wait_seconds_sum[('queue', 'gpu')]"] == pytest.approx(1.2, abs=12 * ledger_tallies.GRAIN)


def test_the_ledgers_sweep_counts(desk: Desk) -> None:
    desk.run("m", 1000.0, 1.0)
    desk.ledger.sweep(1100.0, ring_after_s=15.0, max_attempts=4)
    assert desk.rows(job_run, job_run.c.counted.is_(None)) == 0
    assert desk.rows(tally) > 0


def test_migrating_counts_what_is_there_already(desk: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tallies, "AT_ONCE", 2)
    for place in range(5):
        desk.run(f"m{place}", 1000.0, 1.0)
    migrate(database_url)
    assert desk.rows(job_run, job_run.c.counted.is_(None)) == 0


def test_few_rows_are_not_worth_a_transaction(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tallies, "WORTHWHILE", 3)
    for place in range(2):
        desk.run(f"m{place}", 1000.0, 1.0)
    assert desk.count() == 0
    desk.run("m2", 1000.0, 1.0)
    assert desk.count() == 3


@pytest.mark.parametrize("counted", [True, False])
def test_a_verdict_that_is_revoked_stays_counted_as_it_was_given(desk: Desk, counted: bool) -> None:
    request = desk.judge("one")
    if counted:
        desk.count()
    before = desk.scrape()
    entry = Revocation(subject=request.version.identity, candidate_digest=None, reason="leaked", revoked_at=2000)
    desk.ledger.revoke([SignedRevocation(request.version, entry, {})], "operator", 2000.0)
    row = desk.ledger.evaluation(request.key)
    assert row is not None
    assert row.outcome == "blocked"
    after = desk.scrape()
    assert {name: after[name] for name in before if "verdict" in name} == {
        name: before[name] for name in before if "verdict" in name
    }


@contextmanager
def told(ledger: SqlLedger) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the ledger executes, with their parameters."""
    said: list[tuple[str, Any]] = []

    def listen(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        said.append((statement, parameters))

    engine = ledger._database.engine
    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def plan_of(c: sa.Connection, statement: str, parameters: Any) -> str:
    """How the database would do it. PostgreSQL is told that reading a whole table is dear, as it is of a long one."""
    if c.dialect.name == "sqlite":
        return "\n".join(row[-1] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters))
    c.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return "\n".join(row[0] for row in c.exec_driver_sql(f"EXPLAIN {statement}", parameters))


def reads_it_all(plan: str, table: str) -> bool:
    """Whether the plan goes through every row of a table."""
    whole = (f"SCAN {table}", f"Seq Scan on {table}")
    return any(line.strip(" ->").split("  ")[0] in whole for line in plan.splitlines())


def test_the_plans_that_this_file_calls_whole_reads_are_such(desk: Desk) -> None:
    for table in HISTORY:
        plan = desk.ledger._database.read(lambda c, t=table: plan_of(c, f"SELECT * FROM {t}", ()))
        assert reads_it_all(plan, table), plan


@pytest.mark.parametrize("asked", ["backlog", "statistics"])
def test_a_scrape_goes_through_no_table_of_the_history(desk: Desk, asked: str) -> None:
    desk.run("m", 1000.0, 1.0)
    desk.judge("one")
    desk.count()
    ask: Callable[[float], object] = getattr(desk.ledger, asked)
    with told(desk.ledger) as said:
        ask(NOW)
    assert said
    for statement, parameters in said:
        if not statement.lstrip().upper().startswith("SELECT"):
            continue
        plan = desk.ledger._database.read(lambda c, s=statement, p=parameters: plan_of(c, s, p))
        assert not [table for table in HISTORY if reads_it_all(plan, table)], f"{statement}\n{plan}"


def test_a_scrape_asks_as_much_of_a_long_history_as_of_a_short_one(desk: Desk) -> None:
    def asked() -> tuple[int, int]:
        with told(desk.ledger) as said:
            desk.scrape()
        uncounted = desk.rows(job_run, job_run.c.counted.is_(None)) + desk.rows(
            evaluation, evaluation.c.counted.is_(None)
        )
        return len(said), uncounted

    desk.run("m", 1000.0, 1.0)
    desk.judge("first")
    desk.count()
    short, cells = asked(), desk.rows(tally)
    for place in range(40):
        desk.run(f"m{place}", 1000.0, 1.0)
        desk.judge(f"v{place}")
    desk.count()
    assert asked() == short
    assert desk.rows(tally) == cells


def test_a_read_sees_one_snapshot(desk: Desk) -> None:
    def before_and_after(c: sa.Connection) -> tuple[int, int]:
        first = c.execute(sa.select(sa.func.count()).select_from(job_run)).scalar_one()
        desk.run("meanwhile", 1000.0, 1.0)
        return first, c.execute(sa.select(sa.func.count()).select_from(job_run)).scalar_one()

    assert desk.ledger._database.read(before_and_after) == (0, 0)
