"""Waivers, reviews and broken glasses in the ledger, on both of its databases: what counts when, and what it has judged again."""

import itertools
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from builders import a_verdict, a_version

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import InvalidInput, NotFound, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.glass import BrokenGlass
from gate.domain.jobs import glass_key, inspect_key, judge_key, rejudge_key, review_key
from gate.domain.overview import WaiverQuery
from gate.domain.verdict import Outcome, Review, ReviewDecision, Verdict
from gate.domain.waiver import Approval, Waiver

NOW = 1_795_000_000
VERDICT = a_verdict(judged_at=NOW - 50)
REQUEST = EvaluationRequest.of(a_version(), VERDICT.policy, VERDICT.policy_digest)


def a_waiver(**changes: object) -> Waiver:
    given = {
        "candidate_digest": VERDICT.candidate_digest,
        "policy": VERDICT.policy,
        "rule": "keeps-safety",
        "owner": "nlp",
        "reason": "why",
        "ticket": "RISK-7",
        "requested_by": "sub",
        "requested_at": NOW,
        "expires_at": NOW + 1000,
    }
    return Waiver.model_validate(given | changes)


def by(name: str) -> Approval:
    return Approval(approver=name, at=NOW)


@pytest.fixture
def ledger(database_url: str) -> Iterator[SqlLedger]:
    """A ledger with one verdict on the bytes that waivers here speak of."""
    migrate(database_url)
    made = SqlLedger(database_url)
    made.request_evaluation(REQUEST, NOW)
    claim = made.claim(inspect_key(REQUEST.key), "w", 60, NOW)
    assert claim is not None
    made.finish(claim, NOW)
    claim = made.claim(judge_key(REQUEST.key), "w", 60, NOW)
    assert claim is not None
    made.save_verdict(claim, REQUEST.key, VERDICT, {"summary": {"n": 1}}, NOW)
    made.finish(claim, NOW)
    yield made
    made.close()


def judging_again(ledger: SqlLedger, waiver: Waiver, cause: str) -> str | None:
    found = ledger.job_result(rejudge_key(REQUEST.key, waiver.id, cause))
    return found[0] if found else None


@pytest.mark.parametrize("order", itertools.permutations(["ana", "bo"]), ids="-".join)
def test_a_critical_rule_waits_for_the_second_person_whoever_comes_first(
    ledger: SqlLedger, order: tuple[str, str]
) -> None:
    waiver = a_waiver()
    assert ledger.ask_waiver(waiver, True, NOW).state == "requested"
    assert ledger.ask_waiver(waiver, True, NOW + 1).waiver == waiver
    assert ledger.approve_waiver(waiver.id, by(order[0]), NOW + 2).state == "requested"
    assert judging_again(ledger, waiver, "granted") is None
    with pytest.raises(InvalidInput, match="another approver"):
        ledger.approve_waiver(waiver.id, by(order[0]), NOW + 3)
    granted = ledger.approve_waiver(waiver.id, by(order[1]), NOW + 4)
    assert (granted.state, granted.waiver.approvers) == ("granted", ("ana", "bo"))
    assert judging_again(ledger, waiver, "granted") == "queued"


def test_a_page_of_waivers_tells_how_they_stand_at_a_time_whatever_was_swept(ledger: SqlLedger) -> None:
    made = [a_waiver(ticket=f"RISK-{number}", expires_at=NOW + 1000 + number) for number in range(4)]
    for each in made:
        ledger.ask_waiver(each, False, NOW)
    granted, revoked, waiting, short = made[3], made[0], made[2], made[1]
    ledger.approve_waiver(granted.id, by("ana"), NOW)
    ledger.revoke_waiver(revoked.id, "ana", "why", NOW + 5)

    at = NOW + 1001
    pages = [ledger.waiver_page(WaiverQuery(at=at, offset=start, limit=3)) for start in (0, 3)]
    assert [[kept.waiver.id for kept in page.rows] for page in pages] == [
        [waiting.id, granted.id, revoked.id],
        [short.id],
    ]
    assert [page.more for page in pages] == [True, False]
    assert pages[0].counts == {"in_force": 1, "waiting": 1, "ended": 2}
    for standing, found in (("in_force", [granted]), ("waiting", [waiting]), ("ended", [revoked, short])):
        page = ledger.waiver_page(WaiverQuery(at=at, standing=standing))
        assert [kept.waiver.id for kept in page.rows] == [each.id for each in found]


def test_a_sweep_ends_what_is_over_once_and_has_it_judged_again(ledger: SqlLedger) -> None:
    waiver, idle = a_waiver(), a_waiver(rule="asked-only")
    for each in (waiver, idle):
        ledger.ask_waiver(each, False, NOW)
    ledger.approve_waiver(waiver.id, by("ana"), NOW)
    assert ledger.statistics(NOW).waivers == {"granted": 1, "requested": 1}
    assert ledger.statistics(NOW).waiver_expiry == waiver.expires_at

    for at in (NOW + 999, NOW + 1000, NOW + 1001):
        ledger.sweep(at, ring_after_s=60, max_attempts=3)
        ended = at >= waiver.expires_at
        assert ledger.waiver(waiver.id).state == ("expired" if ended else "granted")
    assert judging_again(ledger, waiver, "expired") == "queued"
    assert judging_again(ledger, idle, "expired") is None
    assert ledger.statistics(NOW).waivers == {"expired": 2}
    assert ledger.statistics(NOW).waiver_expiry is None
    told = [entry.event for entry in ledger.audit_entries() if entry.event == "waiver expired"]
    assert (len(told), ledger.audit_break()) == (2, None)
    with pytest.raises(InvalidInput, match="found one that is expired"):
        ledger.approve_waiver(waiver.id, by("bo"), NOW + 1002)


def test_a_verdict_that_rests_on_an_ended_waiver_is_not_kept(ledger: SqlLedger) -> None:
    waiver = a_waiver()
    ledger.ask_waiver(waiver, False, NOW)
    granted = ledger.approve_waiver(waiver.id, by("ana"), NOW)
    claim = ledger.claim(rejudge_key(REQUEST.key, waiver.id, "granted"), "w", 60, NOW)
    assert claim is not None
    rests = VERDICT.model_copy(update={"outcome": Outcome.APPROVED, "waivers": (granted.waiver,)})
    ledger.revoke_waiver(waiver.id, "bo", "closed", NOW + 1)
    with pytest.raises(Unavailable, match="in force still"):
        ledger.replace_verdict(claim, REQUEST.key, rests, {"summary": {"n": 2}}, NOW + 2)
    kept = ledger.verdict(REQUEST.key)
    assert kept == (VERDICT, {"summary": {"n": 1}})
    assert ledger.waiver(waiver.id).ended_because == "closed"


def test_the_newest_judging_counts_and_the_others_stay_as_they_were(ledger: SqlLedger) -> None:
    waiver = a_waiver()
    ledger.ask_waiver(waiver, False, NOW)
    granted = ledger.approve_waiver(waiver.id, by("ana"), NOW).waiver
    claim = ledger.claim(rejudge_key(REQUEST.key, waiver.id, "granted"), "w", 60, NOW)
    assert claim is not None
    rests = VERDICT.model_copy(update={"outcome": Outcome.APPROVED, "waivers": (granted,), "judged_at": NOW})
    ledger.replace_verdict(claim, REQUEST.key, rests, {"summary": {"n": 2}}, NOW + 2)
    ledger.replace_verdict(claim, REQUEST.key, VERDICT, {"summary": {"n": 3}}, NOW + 3)
    assert ledger.verdict(REQUEST.key) == (VERDICT, {"summary": {"n": 3}})
    assert ledger.kept([REQUEST.key])[REQUEST.key].summary == {"n": 3}
    assert ledger.first_judged_at(REQUEST.key) == VERDICT.judged_at
    for act in ("UPDATE rejudged SET body = ''", "DELETE FROM rejudged", "UPDATE verdict SET body = ''"):
        with pytest.raises(sa.exc.DBAPIError, match="never change"):
            ledger._database.write(lambda c, act=act: c.execute(sa.text(act)))
    assert ledger.statistics(NOW + 4).outcomes == {VERDICT.outcome: 1}


def test_those_in_force_come_first_and_those_for_other_bytes_not_at_all(ledger: SqlLedger) -> None:
    later, sooner, other = a_waiver(expires_at=NOW + 2000), a_waiver(), a_waiver(candidate_digest="f" * 64)
    ended = a_waiver(expires_at=NOW + 5)
    for each in (later, sooner, other, ended):
        ledger.ask_waiver(each, False, NOW)
    ledger.revoke_waiver(ended.id, "bo", "no", NOW)
    assert [each.waiver for each in ledger.waivers(VERDICT.candidate_digest)] == [sooner, later, ended]
    assert len(ledger.waivers()) == 4
    with pytest.raises(NotFound, match="basin-gate waiver ls"):
        ledger.waiver("0" * 64)


def a_review(of: Verdict, reviewer: str = "ana") -> Review:
    return Review(
        decision=ReviewDecision.REJECT, reviewer=reviewer, reason="why", decided_at=NOW, verdict_digest=of.digest
    )


def test_each_verdict_has_one_review_and_a_later_judging_opens_another(ledger: SqlLedger) -> None:
    first = a_review(VERDICT)
    ledger.ask_review(REQUEST.key, first, NOW)
    ledger.ask_review(REQUEST.key, first, NOW + 1)
    with pytest.raises(InvalidInput, match="found it decided by ana"):
        ledger.ask_review(REQUEST.key, a_review(VERDICT, "bo"), NOW + 1)
    claim = ledger.claim(review_key(REQUEST.key, VERDICT.digest), "w", 60, NOW + 2)
    assert claim is not None
    reviewed = VERDICT.model_copy(update={"outcome": Outcome.BLOCKED, "review": first})
    ledger.save_review(claim, REQUEST.key, reviewed, {"summary": {"n": 2}}, NOW + 2)
    assert ledger.verdict(REQUEST.key) == (reviewed, {"summary": {"n": 2}})

    again = VERDICT.model_copy(update={"judged_at": NOW + 3})
    ledger.replace_verdict(claim, REQUEST.key, again, {"summary": {"n": 3}}, NOW + 3)
    second = a_review(again, "bo")
    ledger.ask_review(REQUEST.key, second, NOW + 4)
    assert ledger.verdict(REQUEST.key) == (again, {"summary": {"n": 3}})
    claim = ledger.claim(review_key(REQUEST.key, again.digest), "w", 60, NOW + 5)
    assert claim is not None
    anew = again.model_copy(update={"outcome": Outcome.BLOCKED, "review": second})
    ledger.save_review(claim, REQUEST.key, anew, {"summary": {"n": 4}}, NOW + 5)
    assert ledger.verdict(REQUEST.key) == (anew, {"summary": {"n": 4}})
    assert ledger.reviews(REQUEST.key) == [second, first]
    assert ledger.review(REQUEST.key, VERDICT.digest) == first


def a_glass(at: int = NOW) -> BrokenGlass:
    why = {"by": "ana", "reason": "the old one is down", "ticket": "INC-1", "verdict_digest": VERDICT.digest}
    return BrokenGlass.model_validate(why | {"at": at, "expires_at": at + 100, "review_by": at + 200})


def let_through(ledger: SqlLedger, at: int) -> tuple[int, Verdict]:
    """A broken glass whose approval counts; its number and that approval."""
    glass = a_glass(at)
    made = ledger.break_glass(REQUEST.key, str(VERDICT.candidate_digest), glass, at)
    claim = ledger.claim(glass_key(REQUEST.key, made.id, "broken"), "w", 60, at)
    assert claim is not None
    changes = {"outcome": Outcome.APPROVED, "expires_at": glass.expires_at, "break_glass": glass}
    approval = VERDICT.model_copy(update=changes)
    ledger.save_glass(claim, made.id, approval, {"summary": {"n": 9}}, at)
    ledger.finish(claim, at)
    return made.id, approval


def test_a_broken_glass_counts_until_it_ends_and_what_was_judged_stays_beneath_it(ledger: SqlLedger) -> None:
    number, approval = let_through(ledger, NOW)
    with pytest.raises(InvalidInput, match="waits for its review"):
        ledger.break_glass(REQUEST.key, str(VERDICT.candidate_digest), a_glass(), NOW)
    assert ledger.verdict(REQUEST.key) == (approval, {"summary": {"n": 9}})
    assert ledger.judged(REQUEST.key) == (VERDICT, {"summary": {"n": 1}})
    assert ledger.kept([REQUEST.key])[REQUEST.key].outcome == "approved"
    counted = []
    for at in (NOW + 99, NOW + 100, NOW + 200):
        ledger.sweep(at, ring_after_s=60, max_attempts=3)
        counted.append(ledger.statistics(at).glasses)
    assert counted == [
        {"in_force": 1, "unreviewed": 1, "overdue": 0},
        {"in_force": 0, "unreviewed": 1, "overdue": 0},
        {"in_force": 0, "unreviewed": 0, "overdue": 1},
    ]
    assert ledger.verdict(REQUEST.key) == (VERDICT, {"summary": {"n": 1}})
    assert ledger.kept([REQUEST.key])[REQUEST.key].outcome == VERDICT.outcome
    assert ledger.glass(number).unreviewed
    assert ledger.audit_break() is None


def test_judging_again_meanwhile_changes_what_counts_after_a_broken_glass_and_not_while_it_lasts(
    ledger: SqlLedger,
) -> None:
    _, approval = let_through(ledger, NOW)
    waiver = a_waiver()
    ledger.ask_waiver(waiver, False, NOW)
    ledger.approve_waiver(waiver.id, by("ana"), NOW)
    claim = ledger.claim(rejudge_key(REQUEST.key, waiver.id, "granted"), "w", 60, NOW)
    assert claim is not None
    again = VERDICT.model_copy(update={"judged_at": NOW + 1})
    ledger.replace_verdict(claim, REQUEST.key, again, {"summary": {"n": 2}}, NOW + 1)
    assert ledger.verdict(REQUEST.key) == (approval, {"summary": {"n": 9}})
    ledger.sweep(NOW + 100, ring_after_s=60, max_attempts=3)
    assert ledger.verdict(REQUEST.key) == (again, {"summary": {"n": 2}})


def test_a_rejected_broken_glass_ends_at_once_and_one_that_was_reviewed_may_be_followed_by_another(
    ledger: SqlLedger,
) -> None:
    first, _ = let_through(ledger, NOW)
    stated = {"reviewer": "bo", "reason": "why", "decided_at": NOW, "verdict_digest": a_glass().digest}
    ledger.review_glass(first, Review(decision=ReviewDecision.APPROVE, **stated), NOW + 1)
    assert ledger.statistics(NOW + 2).glasses == {"in_force": 1, "unreviewed": 0, "overdue": 0}
    ledger.sweep(NOW + 100, ring_after_s=60, max_attempts=3)
    second, _ = let_through(ledger, NOW + 101)
    ledger.review_glass(second, Review(decision=ReviewDecision.REJECT, **stated), NOW + 102)
    assert ledger.verdict(REQUEST.key) == (VERDICT, {"summary": {"n": 1}})
    revoking = [ledger.job_result(glass_key(REQUEST.key, number, "rejected")) for number in (first, second)]
    assert [found and found[0] for found in revoking] == [None, "queued"]
    with pytest.raises(InvalidInput, match="found it reviewed by bo"):
        ledger.review_glass(second, Review(decision=ReviewDecision.APPROVE, **stated), NOW + 103)
    with pytest.raises(NotFound, match="broken glass 99"):
        ledger.glass(99)
