"""The ledger's jobs and doorbells on both of its databases: what was asked is asked once, and nobody gets stuck."""

import pytest
from builders import a_verdict
from ledger_desk import EVIDENCE, INSPECT, JUDGE, LEASE_S, REQUEST, Desk, a_job, a_profile

from gate.domain.errors import InvalidInput, LostLease
from gate.domain.jobs import measure_key
from gate.domain.records import JobRequest


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


def test_a_job_can_wait_for_several_which_are_all_asked_for_at_once(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a"), a_job("there")], desk.now)
    desk.ledger.finish(desk.claimed("there"), desk.now)
    desk.clear_outbox()
    told = {"stage": "collecting", "fraction": 0.25}
    desk.ledger.wait(desk.claimed("a"), desk.now, a_job("b"), a_job("there"), a_job("c"), progress=told)
    assert desk.doorbells() == ["b", "c"]
    desk.ledger.finish(desk.claimed("c"), desk.now)
    waiting = desk.claimed("a")
    assert waiting.attempts == 1
    desk.ledger.wait(waiting, desk.now, a_job("b"), a_job("there"), a_job("c"))
    assert desk.state("a") == "waiting"
    desk.ledger.fail(desk.claimed("b"), desk.now, error="broken")
    assert desk.claimed("a").attempts == 1
    states = {
        key: state for key, (state, *_) in desk.ledger.job_results(["b", "c", "there", "never asked for"]).items()
    }
    assert states == {"b": "failed", "c": "done", "there": "done"}


def test_what_ended_while_a_job_looked_is_no_waiting_in_vain(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a"), a_job("b"), a_job("c")], desk.now)
    desk.ledger.finish(desk.claimed("b"), desk.now)
    looking, late = desk.claimed("a"), desk.claimed("c")
    desk.ledger.finish(late, desk.now)
    desk.ledger.wait(looking, desk.now, a_job("b"), a_job("c"))
    again = desk.claimed("a")
    assert again.attempts == 1
    desk.ledger.wait(again, desk.now, a_job("b"), a_job("c"))
    assert desk.claimed("a").attempts == 2


def test_a_job_that_waits_for_nothing_is_refused(desk: Desk) -> None:
    desk.ledger.enqueue([a_job("a")], desk.now)
    with pytest.raises(InvalidInput, match="found none"):
        desk.ledger.wait(desk.claimed("a"), desk.now)


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
