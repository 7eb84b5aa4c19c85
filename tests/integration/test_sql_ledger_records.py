"""The ledger's records on both of its databases: what was decided stays, and is found again."""

import pytest
import sqlalchemy as sa
from builders import a_verdict, a_version, an_evidence
from ledger_desk import EVIDENCE, INSPECT, JUDGE, LEASE_S, REQUEST, Desk, a_base, a_job, a_profile, judged, run_sql

from gate.adapters.database import Database
from gate.adapters.sql_ledger import SqlLedger
from gate.domain.errors import InvalidInput, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import measure_key, profile_key
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome


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
