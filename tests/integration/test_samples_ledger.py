"""More samples in the ledger: where they are compared, for whom, and what is left when that fails."""

import json

import pytest
from builders import a_verdict, an_evidence
from ledger_desk import JUDGE, REQUEST, Desk, judged

from gate.domain.errors import InvalidInput
from gate.domain.evidence import extended_evidence_key
from gate.domain.jobs import CPU_QUEUE, EXTEND, MEASURE, REJUDGE, extend_key, extended_judge_key
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome, Review, ReviewDecision, Verdict
from gate.settings import Settings

QUEUE = "gpu-80"


def asking(of: Verdict, decision: ReviewDecision = ReviewDecision.MORE_SAMPLES, items: int | None = 8) -> Review:
    stated = {"decision": decision, "reviewer": "ana", "reason": "eight are few", "decided_at": 1_001}
    return Review.model_validate(stated | {"verdict_digest": of.digest, "items": items})


def asked(desk: Desk) -> Verdict:
    """A verdict on evidence that was measured on a queue of its own, of which more samples were asked for."""
    verdict = a_verdict()
    judged(desk)
    desk.ledger.enqueue([JobRequest("measure:x", MEASURE, QUEUE, {})], desk.now)
    desk.ledger.save_evidence(desk.claimed("measure:x"), an_evidence(), desk.now)
    desk.clear_outbox()
    desk.ledger.ask_review(REQUEST.key, asking(verdict), desk.now)
    return verdict


def test_they_are_compared_where_the_evidence_was_measured_and_judged_after_that(desk: Desk) -> None:
    of = asked(desk)
    extend, again = extend_key(REQUEST.key, of.digest), extended_judge_key(REQUEST.key, of.digest)
    rung = [item.payload for item in desk.ledger.outbox(desk.now) if item.kind == "doorbell"]
    assert [(each["key"], each["kind"], each["queue"]) for each in rung] == [(extend, EXTEND, QUEUE)]
    assert desk.state(again) == "waiting"

    claim = desk.claimed(extend)
    assert claim.payload == {"evaluation": REQUEST.key, "verdict": of.digest, "evidence": of.evidence_key}
    desk.ledger.finish(claim, desk.now)
    judging = desk.claimed(again)
    assert (judging.kind, judging.payload["evaluation"]) == (REJUDGE, REQUEST.key)
    assert judging.payload["extended"] == extended_evidence_key(of.evidence_key, of.digest)


def test_a_comparison_that_fails_for_good_is_judged_too(desk: Desk) -> None:
    of = asked(desk)
    desk.ledger.fail(desk.claimed(extend_key(REQUEST.key, of.digest)), desk.now, error="no memory")
    assert desk.state(extended_judge_key(REQUEST.key, of.digest)) == "queued"


def test_who_asked_is_recorded_and_the_first_to_decide_stands(desk: Desk) -> None:
    of = asked(desk)
    entry = next(each for each in desk.ledger.audit_entries() if each.event == "verdict reviewed")
    assert entry.actor == "ana"
    detail = json.loads(entry.detail)
    assert [detail[name] for name in ("decision", "reason", "items", "verdict")] == [
        "more_samples",
        "eight are few",
        8,
        of.digest,
    ]
    for other in (asking(of, ReviewDecision.APPROVE, None), asking(of, items=9)):
        with pytest.raises(InvalidInput, match="found it decided by ana"):
            desk.ledger.ask_review(REQUEST.key, other, desk.now)
    desk.ledger.ask_review(REQUEST.key, asking(of), desk.now)
    assert [each.decision for each in desk.ledger.reviews(REQUEST.key)] == [ReviewDecision.MORE_SAMPLES]


def test_asking_changes_no_verdict_and_the_one_on_more_samples_counts_with_its_evidence(desk: Desk) -> None:
    of = asked(desk)
    kept = desk.ledger.verdict(REQUEST.key)
    assert kept is not None
    assert kept[0] == of

    extend, key = extend_key(REQUEST.key, of.digest), extended_evidence_key(of.evidence_key, of.digest)
    claim = desk.claimed(extend)
    desk.ledger.save_evidence(claim, an_evidence(key=key), desk.now)
    desk.ledger.finish(claim, desk.now)
    row = desk.ledger.evaluation(REQUEST.key)
    assert row is not None
    # Evidence and verdict change together: nobody reads one without the other.
    assert row.evidence_key == of.evidence_key

    value = a_verdict(an_evidence(key=key), outcome=Outcome.APPROVED, samples_asked=(asking(of),))
    judging = desk.claimed(extended_judge_key(REQUEST.key, of.digest))
    desk.ledger.replace_verdict(judging, REQUEST.key, value, {"payload": "y"}, desk.now)
    row, kept = desk.ledger.evaluation(REQUEST.key), desk.ledger.verdict(REQUEST.key)
    assert row is not None
    assert kept is not None
    assert (row.evidence_key, row.outcome, row.state) == (key, "approved", "done")
    assert kept[0] == value
    assert desk.ledger.evidence(of.evidence_key) == an_evidence()
    assert desk.state(JUDGE) == "running"


def test_they_go_ahead_of_what_nobody_waits_for(desk: Desk) -> None:
    judged(desk)
    desk.ledger.enqueue([JobRequest("rehash:early", "rehash", "gpu", {})], desk.now)
    desk.ledger.ask_review(REQUEST.key, asking(a_verdict()), desk.now)
    claim = desk.ledger.claim_next("rehash:early", "w", 60, desk.now, Settings().sharing())
    assert claim is not None
    assert claim.kind == EXTEND
    assert CPU_QUEUE not in [each.queue for each in desk.ledger.at_work() if each.key == claim.key]
