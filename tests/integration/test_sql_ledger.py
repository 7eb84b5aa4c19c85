"""The ledger on both of its databases: what was asked is asked once, what was decided stays, nobody gets stuck."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from builders import a_checkpoint, a_verdict, a_version, an_evidence

from gate.adapters.database import Database
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.checkpoint import Base
from gate.domain.errors import InvalidInput, LostLease, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import BasinProfile
from gate.domain.jobs import GPU_QUEUE, MEASURE, inspect_key, judge_key, measure_key, profile_key
from gate.domain.verdict import Outcome
from gate.ports import Claim, JobRequest

REQUEST = EvaluationRequest.of(a_version(), "default", "d" * 64)
INSPECT, JUDGE = inspect_key(REQUEST.key), judge_key(REQUEST.key)
EVIDENCE = an_evidence()
LEASE_S = 60.0


@dataclass
class Desk:
    """A ledger with a clock that ticks once a look."""

    ledger: SqlLedger
    url: str
    ticks: Iterator[int] = field(default_factory=lambda: count(1000))

    @property
    def now(self) -> float:
        return float(next(self.ticks))

    def claimed(self, key: str, owner: str = "worker") -> Claim:
        claim = self.ledger.claim(key, owner, LEASE_S, self.now)
        assert claim is not None, self.ledger.job_result(key)
        return claim

    def state(self, key: str) -> str:
        result = self.ledger.job_result(key)
        assert result is not None
        return result[0]

    def doorbells(self) -> list[str]:
        return [i.payload["key"] for i in self.ledger.outbox(self.now) if i.kind == "doorbell"]

    def projections(self) -> list[str]:
        return [i.payload["evaluation"] for i in self.ledger.outbox(self.now) if i.kind == "project"]

    def clear_outbox(self) -> None:
        for item in self.ledger.outbox(self.now + 1e6):
            self.ledger.outbox_done(item.seq, self.now)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    migrate(database_url)
    ledger = SqlLedger(database_url)
    yield Desk(ledger, database_url)
    ledger.close()


def a_job(key: str, waits_for: str | None = None, **payload: Any) -> JobRequest:
    return JobRequest(key, MEASURE, GPU_QUEUE, payload, waits_for)


def run_sql(url: str, statement: str) -> None:
    database = Database(url)
    try:
        database.write(lambda c: c.execute(sa.text(statement)))
    finally:
        database.close()


def test_a_delivery_asks_for_one_evaluation_and_rings_one_doorbell(desk: Desk) -> None:
    assert desk.ledger.accept_delivery("d-1", "b" * 64, b"{}", REQUEST, desk.now)
    assert desk.doorbells() == [INSPECT]
    assert desk.state(JUDGE) == "waiting"


def test_five_deliveries_of_one_event_ask_once(desk: Desk) -> None:
    answers = [desk.ledger.accept_delivery(f"d-{n % 3}", "b" * 64, b"{}", REQUEST, desk.now) for n in range(5)]
    assert answers == [True, False, False, False, False]
    assert desk.doorbells() == [INSPECT]
    assert len(desk.ledger.evaluations()) == 1


def test_a_delivery_that_asks_for_nothing_is_new_once(desk: Desk) -> None:
    again = [desk.ledger.accept_delivery(i, "b" * 64, b"{}", None, desk.now) for i in ("d-1", "d-1", "d-2")]
    assert again == [True, False, False]
    assert desk.ledger.evaluations() == []


def test_asking_without_a_delivery_is_the_same_as_with_one(desk: Desk) -> None:
    assert desk.ledger.request_evaluation(REQUEST, desk.now)
    assert not desk.ledger.accept_delivery("d-1", "b" * 64, b"{}", REQUEST, desk.now)


def test_a_held_job_cannot_be_claimed_by_another(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    desk.claimed("a")
    assert desk.ledger.claim("a", "other", LEASE_S, desk.now) is None


def test_a_job_nobody_asked_for_cannot_be_claimed(desk: Desk) -> None:
    assert desk.ledger.claim("unknown", "worker", LEASE_S, desk.now) is None


def test_a_finished_job_is_never_claimed_again_however_often_it_is_asked_for(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    desk.ledger.finish(desk.claimed("a"), desk.now, result={"x": 1})
    desk.ledger.enqueue([a_job("a")], desk.now)
    assert desk.ledger.claim("a", "other", LEASE_S, desk.now) is None
    assert desk.ledger.job_result("a") == ("done", {"x": 1}, None)


def test_a_worker_whose_lease_ended_cannot_write_after_its_successor_began(desk: Desk) -> None:
    desk.ledger.request_evaluation(REQUEST, desk.now)
    zombie = desk.claimed(INSPECT)
    later = desk.now + LEASE_S + 10
    successor = desk.ledger.claim(INSPECT, "successor", LEASE_S, later)
    assert successor is not None
    assert successor.epoch == zombie.epoch + 1
    ledger = desk.ledger
    for write in (
        lambda: ledger.renew(zombie, LEASE_S, later),
        lambda: ledger.finish(zombie, later),
        lambda: ledger.fail(zombie, later, error="late"),
        lambda: ledger.retry(zombie, later, error="late", delay_s=0),
        lambda: ledger.wait(zombie, later, a_job("other")),
        lambda: ledger.note(REQUEST.key, later, claim=zombie, evidence_key="e" * 64),
        lambda: ledger.save_evidence(zombie, EVIDENCE, later),
        lambda: ledger.save_profile(zombie, a_profile(), later),
        lambda: ledger.save_verdict(zombie, REQUEST.key, a_verdict(), {}, later),
    ):
        with pytest.raises(LostLease, match="given to somebody else"):
            write()
    assert ledger.evidence(EVIDENCE.key) is None
    assert ledger.verdict(REQUEST.key) is None
    ledger.finish(successor, later)
    assert desk.state(INSPECT) == "done"


def test_a_lease_taken_back_by_the_sweep_is_lost_although_nobody_claimed_it_yet(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    zombie = desk.claimed("a")
    assert desk.ledger.sweep(desk.now + LEASE_S + 10, ring_after_s=1e6, max_attempts=3) == 1
    with pytest.raises(LostLease):
        desk.ledger.finish(zombie, desk.now)
    assert desk.state("a") == "queued"


def test_a_renewed_lease_is_not_swept(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    claim = desk.claimed("a")
    desk.ledger.renew(claim, 10 * LEASE_S, desk.now)
    assert desk.ledger.sweep(desk.now + 2 * LEASE_S, ring_after_s=1e6, max_attempts=3) == 0
    desk.ledger.finish(claim, desk.now)


def test_a_job_whose_workers_keep_dying_fails_for_good_and_lets_others_go_on(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a"), a_job("b", waits_for="a")], desk.now)
    for begun in (2000.0, 4000.0):
        assert desk.ledger.claim("a", "worker", LEASE_S, begun) is not None
        desk.ledger.sweep(begun + 10 * LEASE_S, ring_after_s=1e6, max_attempts=2)
    state, _, error = desk.ledger.job_result("a") or ("", None, None)
    assert state == "failed"
    assert error is not None
    assert "attempt 2 of 2" in error
    assert desk.state("b") == "queued"


@pytest.mark.parametrize("way", ["finish", "fail"])
def test_a_waiting_job_goes_on_and_is_rung_for_whichever_way_the_other_ended(desk: Desk, way: str) -> None:
    desk.ledger.enqueue([a_job("a"), a_job("b", waits_for="a")], desk.now)
    desk.clear_outbox()
    claim = desk.claimed("a")
    if way == "finish":
        desk.ledger.finish(claim, desk.now)
    else:
        desk.ledger.fail(claim, desk.now, error="broken")
    assert desk.state("b") == "queued"
    assert desk.doorbells() == ["b"]


def test_a_job_that_waits_for_one_that_has_ended_is_queued_at_once(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    desk.ledger.finish(desk.claimed("a"), desk.now)
    desk.ledger.enqueue([a_job("b", waits_for="a")], desk.now)
    assert desk.state("b") == "queued"


def test_a_job_that_waits_for_one_that_never_comes_goes_on_at_the_next_sweep(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("b", waits_for="nowhere")], desk.now)
    assert desk.state("b") == "waiting"
    desk.ledger.sweep(desk.now, ring_after_s=1e6, max_attempts=3)
    assert desk.state("b") == "queued"


def test_a_running_job_can_wait_for_another_without_spending_an_attempt(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    desk.ledger.wait(desk.claimed("a"), desk.now, a_job("b"))
    assert desk.state("a") == "waiting"
    desk.ledger.finish(desk.claimed("b"), desk.now)
    again = desk.claimed("a")
    assert (again.attempts, again.epoch) == (1, 2)


def test_waiting_again_and_again_for_what_has_ended_spends_attempts(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a"), a_job("b")], desk.now)
    desk.ledger.fail(desk.claimed("b"), desk.now, error="broken")
    for attempt in (1, 2, 3):
        claim = desk.claimed("a")
        assert claim.attempts == attempt
        desk.ledger.wait(claim, desk.now, a_job("b"))
    assert desk.state("b") == "failed"


def test_a_job_cannot_wait_for_itself(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    with pytest.raises(InvalidInput, match="found itself"):
        desk.ledger.wait(desk.claimed("a"), desk.now, a_job("a"))


def test_a_job_put_off_is_not_due_and_not_rung_for_before_its_time(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    desk.clear_outbox()
    desk.ledger.retry(desk.claimed("a"), 2000.0, error="busy", delay_s=500.0)
    assert desk.ledger.claim("a", "worker", LEASE_S, 2499.0) is None
    assert desk.ledger.outbox(2499.0) == []
    assert [i.payload["key"] for i in desk.ledger.outbox(2500.0)] == ["a"]
    assert desk.ledger.claim("a", "worker", LEASE_S, 2500.0) is not None


def test_an_outage_is_counted_apart_from_attempts(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    desk.ledger.retry(desk.claimed("a"), desk.now, error="MLflow is down", delay_s=0, outage=True)
    again = desk.claimed("a")
    assert (again.attempts, again.outages) == (1, 1)


def test_a_failed_job_is_tried_anew_when_it_is_asked_for_anew(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a", first=1)], desk.now)
    desk.ledger.fail(desk.claimed("a"), desk.now, error="out of memory")
    desk.ledger.enqueue([a_job("a", second=2)], desk.now)
    again = desk.claimed("a")
    assert (again.attempts, dict(again.payload)) == (1, {"second": 2})


def test_what_follows_a_job_takes_the_place_of_what_waited_for_it(desk: Desk) -> None:
    desk.ledger.request_evaluation(REQUEST, desk.now)
    inspection = desk.claimed(INSPECT)
    measure = a_job(measure_key(EVIDENCE.key))
    judge = JobRequest(JUDGE, "judge", "cpu", {"evidence": EVIDENCE.key}, waits_for=measure.key)
    desk.ledger.finish(inspection, desk.now, then=(measure, judge))
    assert desk.state(JUDGE) == "waiting"
    desk.ledger.finish(desk.claimed(measure.key), desk.now)
    assert dict(desk.claimed(JUDGE).payload) == {"evidence": EVIDENCE.key}


def test_an_evaluation_whose_inspection_fails_is_judged_all_the_same(desk: Desk) -> None:
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.fail(desk.claimed(INSPECT), desk.now, error="broken")
    assert desk.claimed(JUDGE).kind == "judge"


def test_an_evaluation_whose_judging_fails_ends_in_error_and_is_projected(desk: Desk) -> None:
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.fail(desk.claimed(INSPECT), desk.now, error="broken")
    desk.ledger.fail(desk.claimed(JUDGE), desk.now, error="no signing key")
    row = desk.ledger.evaluation(REQUEST.key)
    assert row is not None
    assert (row.state, row.outcome, row.reason) == ("done", "error", "no signing key")
    assert desk.projections() == [REQUEST.key]


def test_a_dead_workers_job_is_given_back_once_and_only_if_it_was_its_own(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    claim = desk.claimed("a", owner="message-1")
    desk.clear_outbox()
    gone = {"error": "killed", "max_attempts": 3}
    assert not desk.ledger.abandon("message-2", desk.now, **gone)
    assert desk.ledger.abandon("message-1", desk.now, **gone)
    assert not desk.ledger.abandon("message-1", desk.now, **gone)
    assert desk.doorbells() == ["a"]
    with pytest.raises(LostLease):
        desk.ledger.finish(claim, desk.now)


def test_a_lost_doorbell_is_rung_again_but_never_doubled_in_the_outbox(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], 1000.0)
    assert desk.ledger.sweep(1100.0, ring_after_s=60, max_attempts=3) == 0
    assert len(desk.ledger.outbox(1100.0)) == 1
    desk.clear_outbox()
    assert desk.ledger.sweep(1101.0, ring_after_s=60, max_attempts=3) == 1
    desk.clear_outbox()
    assert desk.ledger.sweep(1130.0, ring_after_s=60, max_attempts=3) == 0
    assert desk.ledger.sweep(1300.0, ring_after_s=60, max_attempts=3) == 1
    assert len(desk.ledger.outbox(1300.0)) == 1


def test_a_job_that_queues_for_hours_is_rung_for_ever_less_often(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], 0.0)
    rung = []
    for now in range(0, 2701, 15):
        desk.clear_outbox()
        if desk.ledger.sweep(now, ring_after_s=15, max_attempts=3):
            rung.append(now)
    assert rung == [15, 30, 60, 120, 240, 480, 960, 1560, 2160]


def test_a_doorbell_still_being_rung_does_not_swallow_the_next_one(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], 1000.0)
    (being_rung,) = desk.ledger.outbox(1000.0)
    claim = desk.claimed("a")
    desk.ledger.retry(claim, 1100.0, error="busy", delay_s=5.0)
    desk.ledger.outbox_done(being_rung.seq, 1100.0)
    assert [i.payload["key"] for i in desk.ledger.outbox(1105.0)] == ["a"]


def test_an_outbox_item_put_off_comes_back_later(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], 1000.0)
    (item,) = desk.ledger.outbox(1000.0)
    desk.ledger.outbox_later(item.seq, 1000.0, 30.0, "broker down")
    assert desk.ledger.outbox(1029.0) == []
    assert desk.ledger.outbox(1030.0) == [item]


def test_a_verdict_ends_its_evaluation_and_asks_to_be_projected_until_it_is(desk: Desk) -> None:
    judged(desk)
    row = desk.ledger.evaluation(REQUEST.key)
    assert row is not None
    assert (row.state, row.outcome, row.reason, row.projected) == ("done", "blocked", "Safety fell.", False)
    desk.clear_outbox()
    row = desk.ledger.evaluation(REQUEST.key)
    assert row is not None
    assert row.projected
    assert desk.ledger.sweep(desk.now, ring_after_s=1e6, max_attempts=3) == 0


def test_a_projection_that_got_lost_is_asked_for_again(desk: Desk) -> None:
    judged(desk)
    run_sql(desk.url, "DELETE FROM outbox")
    desk.ledger.sweep(desk.now, ring_after_s=1e6, max_attempts=3)
    desk.ledger.project(REQUEST.key, desk.now)
    assert desk.projections() == [REQUEST.key]


def test_the_first_verdict_stands(desk: Desk) -> None:
    claim = judged(desk)
    other = a_verdict(outcome=Outcome.APPROVED, reason="Changed my mind.")
    desk.ledger.save_verdict(claim, REQUEST.key, other, {"payload": "y"}, desk.now)
    assert desk.ledger.verdict(REQUEST.key) == (a_verdict(), {"payload": "x"})
    row = desk.ledger.evaluation(REQUEST.key)
    assert row is not None
    assert row.outcome == "blocked"


@pytest.mark.parametrize("table", ["verdict", "audit"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = 'x'", "DELETE FROM {}"])
def test_the_database_refuses_to_change_what_was_decided(desk: Desk, table: str, change: str) -> None:
    judged(desk)
    column = {"verdict": "body", "audit": "detail"}[table]
    with pytest.raises(sa.exc.DBAPIError, match=f"rows of {table} never change"):
        run_sql(desk.url, change.format(table, column))
    assert desk.ledger.verdict(REQUEST.key) is not None


def test_the_audit_tells_of_the_request_and_the_verdict_in_an_unbroken_chain(desk: Desk) -> None:
    judged(desk)
    desk.ledger.audit("alias refused", "guard", {"alias": "champion", "größe": 1.5}, 1234.5678)
    assert desk.ledger.audit_break() is None
    database = Database(desk.url)
    events = database.read(lambda c: c.execute(sa.text("SELECT event FROM audit ORDER BY seq")).scalars().all())
    database.close()
    assert events == ["evaluation requested", "verdict", "alias refused"]


def test_an_audit_entry_changed_behind_the_triggers_back_shows(desk: Desk) -> None:
    judged(desk)
    trigger = "audit_no_update" if desk.url.startswith("sqlite") else "audit_never_changes ON audit"
    run_sql(desk.url, f"DROP TRIGGER {trigger}")
    run_sql(desk.url, "UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    assert desk.ledger.audit_break() == 2


def test_an_inspection_does_not_replace_evidence_that_was_measured(desk: Desk) -> None:
    measured = an_evidence(provenance={"by": "measure"})
    desk.ledger.enqueue([a_job("m")], desk.now)
    desk.ledger.save_evidence(desk.claimed("m"), measured, desk.now)
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.save_evidence(desk.claimed(INSPECT), an_evidence(measurements=()), desk.now)
    assert desk.ledger.evidence(measured.key) == measured


def test_a_measurement_replaces_what_the_inspection_found(desk: Desk) -> None:
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.save_evidence(desk.claimed(INSPECT), an_evidence(measurements=()), desk.now)
    desk.ledger.enqueue([a_job("m")], desk.now)
    desk.ledger.save_evidence(desk.claimed("m"), EVIDENCE, desk.now)
    assert desk.ledger.evidence(EVIDENCE.key) == EVIDENCE


def test_a_profile_is_found_under_what_it_was_made_from(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("p")], desk.now)
    desk.ledger.save_profile(desk.claimed("p"), a_profile(), desk.now)
    assert desk.ledger.profile(profile_key("b" * 64, "c" * 64, "e" * 64)) == a_profile()
    assert desk.ledger.profile("another") is None


def test_a_base_is_replaced_by_name(desk: Desk) -> None:
    first = a_base("0" * 64)
    second = a_base("1" * 64)
    desk.ledger.save_base(first, desk.now)
    desk.ledger.save_base(second, desk.now)
    assert desk.ledger.bases() == [second]


def test_an_evaluation_shows_how_far_it_has_come(desk: Desk) -> None:
    ledger, seen = desk.ledger, []

    def look() -> None:
        row = ledger.evaluation(REQUEST.key)
        assert row is not None
        seen.append((row.state, row.stage, row.progress))

    ledger.request_evaluation(REQUEST, desk.now)
    look()
    inspection = desk.claimed(INSPECT)
    ledger.renew(inspection, LEASE_S, desk.now, {"stage": "hash", "fraction": 0.5})
    look()
    ledger.note(REQUEST.key, desk.now, claim=inspection, evidence_key=EVIDENCE.key)
    profile, measure = a_job("profile"), a_job(measure_key(EVIDENCE.key), waits_for="profile")
    ledger.finish(inspection, desk.now, then=(profile, measure, JobRequest(JUDGE, "judge", "cpu", {}, measure.key)))
    profiling = desk.claimed("profile")
    ledger.renew(profiling, LEASE_S, desk.now, {"stage": "noise", "fraction": 0.25})
    look()
    ledger.finish(profiling, desk.now)
    look()
    ledger.finish(desk.claimed(measure.key), desk.now)
    look()
    ledger.save_verdict(desk.claimed(JUDGE), REQUEST.key, a_verdict(), {}, desk.now)
    look()
    assert seen == [
        ("requested", "", 0.0),
        ("inspecting", "hash", 0.5),
        ("measuring", "noise", 0.25),
        ("measuring", "", 0.0),
        ("judging", "", 0.0),
        ("done", "", 1.0),
    ]


def test_an_inspection_that_waits_for_the_bases_profile_shows_how_far_that_has_come(desk: Desk) -> None:
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.wait(desk.claimed(INSPECT), desk.now, a_job("profile"))
    desk.ledger.renew(desk.claimed("profile"), LEASE_S, desk.now, {"stage": "noise", "fraction": 0.5})
    row = desk.ledger.evaluation(REQUEST.key)
    assert row is not None
    assert (row.state, row.stage, row.progress) == ("inspecting", "noise", 0.5)


def test_evaluations_are_listed_newest_first_and_by_name(desk: Desk) -> None:
    names = ["a b/ü", "other", "a b/ü"]
    requests = [
        EvaluationRequest.of(a_version(name=name, version=str(n)), "default", "d" * 64) for n, name in enumerate(names)
    ]
    for request in requests:
        desk.ledger.request_evaluation(request, desk.now)
    assert [row.request for row in desk.ledger.evaluations()] == requests[::-1]
    assert [row.request for row in desk.ledger.evaluations(name="a b/ü")] == [requests[2], requests[0]]
    assert [row.request for row in desk.ledger.evaluations(limit=1, offset=1)] == [requests[1]]
    found = desk.ledger.evaluation_of(requests[1].version.identity, "d" * 64)
    assert found is not None
    assert found.request == requests[1]


def test_the_backlog_counts_what_waits_and_for_how_long(desk: Desk) -> None:
    ledger = desk.ledger
    ledger.enqueue([a_job("a"), a_job("b"), a_job("c", waits_for="a")], 1000.0)
    ledger.claim("a", "worker", LEASE_S, 1000.0)
    backlog = ledger.backlog(1100.0)
    assert backlog.jobs == {("gpu", "running"): 1, ("gpu", "queued"): 1, ("gpu", "waiting"): 1}
    assert backlog.oldest_s == {"gpu": 100.0}
    assert backlog.expired_leases == 1
    assert backlog.outbox == {"doorbell": 2}


def test_one_leader_at_a_time_and_another_after_it_is_silent(desk: Desk) -> None:
    lead = desk.ledger.acquire_leader
    assert lead("dispatcher", "one", 10, 1000.0)
    assert not lead("dispatcher", "two", 10, 1005.0)
    assert lead("dispatcher", "one", 10, 1009.0)
    assert not lead("dispatcher", "two", 10, 1015.0)
    assert lead("dispatcher", "two", 10, 1020.0)
    assert lead("reconciler", "one", 10, 1020.0)


def test_a_database_without_the_schema_says_that_it_does_not_answer(database_url: str) -> None:
    ledger = SqlLedger(database_url)
    with pytest.raises(Unavailable, match="migrated"):
        ledger.ping()
    ledger.close()


def test_a_database_that_is_not_there_is_unavailable() -> None:
    ledger = SqlLedger("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable):
        ledger.request_evaluation(REQUEST, 1.0)


@pytest.mark.parametrize("url", ["mysql://root@localhost/x", "sqlite://"])
def test_a_database_the_ledger_cannot_live_in_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        SqlLedger(url)


def judged(desk: Desk) -> Claim:
    """Brings the request to its verdict."""
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.finish(desk.claimed(INSPECT), desk.now)
    claim = desk.claimed(JUDGE)
    desk.ledger.save_verdict(claim, REQUEST.key, a_verdict(), {"payload": "x"}, desk.now)
    desk.ledger.renew(claim, 1e6, desk.now)
    return claim


def a_base(digest: str) -> Base:
    return Base(name="base", digest=digest, source="models:/base/1", suite="staged", checkpoint=a_checkpoint())


def a_profile() -> BasinProfile:
    return BasinProfile(
        base_digest="b" * 64,
        suite_digest="c" * 64,
        plan_digest="e" * 64,
        parameters=10,
        weight_norm=1.5,
        capabilities=(),
        gradients_sha256=None,
        seed=1,
        provenance={},
        seconds=0.5,
    )
