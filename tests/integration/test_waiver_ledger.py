"""Waivers in the ledger, on both of its databases: approvals add up, every beginning and end has verdicts judged again."""

import itertools
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from builders import a_verdict, a_version

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import InvalidInput, NotFound, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key, rejudge_key
from gate.domain.verdict import Outcome
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
