"""Pages of evaluations on both databases: complete, in order, and the same however many rows come before."""

from collections.abc import Iterator

import pytest
from builders import a_verdict, a_version, an_estimate
from databases import sqlite_file

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import GPU_QUEUE, MEASURE, inspect_key, judge_key
from gate.domain.overview import FleetQuery
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome

OUTCOMES = (Outcome.APPROVED, Outcome.BLOCKED, None)
COUNT = 12


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return sqlite_file(tmp_path_factory.mktemp("fleet"))
    return str(request.getfixturevalue("postgres").empty_database())


@pytest.fixture(scope="module")
def ledger(url: str) -> Iterator[SqlLedger]:
    migrate(url)
    opened = SqlLedger(url)
    yield opened
    opened.close()


def asked(ledger: SqlLedger, number: int) -> EvaluationRequest:
    version = a_version(name=f"Team-{number % 3}/chat_{number}", version=str(number), created_ms=number)
    request = EvaluationRequest.of(version, "default", "d" * 64)
    # Several share a time: only the key tells them apart.
    ledger.request_evaluation(request, 1000.0 + number // 4)
    return request


def judged(ledger: SqlLedger, request: EvaluationRequest, outcome: Outcome, position: float | None) -> None:
    ledger.finish(ledger.claim(inspect_key(request.key), "w", 60, 2000), 2000)
    claim = ledger.claim(judge_key(request.key), "w", 60, 2000)
    finding = a_verdict().findings[0].model_copy(update={"estimate": an_estimate(-0.3, 0.01)})
    verdict = a_verdict(outcome=outcome, findings=(finding,))
    ledger.save_verdict(claim, request.key, verdict, {}, 2000, basin_position=position)
    ledger.finish(claim, 2000)


@pytest.fixture(scope="module")
def filled(ledger: SqlLedger) -> SqlLedger:
    for number in range(COUNT):
        request = asked(ledger, number)
        outcome = OUTCOMES[number % 3]
        if outcome is not None:
            judged(ledger, request, outcome, None if number % 2 else number / 10)
    return ledger


def walked(ledger: SqlLedger, query: FleetQuery) -> list[tuple[str, float | None]]:
    """All rows of a query, page by page."""
    found, after = [], None
    for _ in range(COUNT + 1):
        page = ledger.fleet(FleetQuery(**{**query_fields(query), "after": after}))
        found += [(row.evaluation.request.version.name, row.basin_position) for row in page.rows]
        after = page.next
        if after is None:
            return found
    raise AssertionError("the pages never end")


def query_fields(query: FleetQuery) -> dict[str, object]:
    return {name: getattr(query, name) for name in FleetQuery.__dataclass_fields__}


@pytest.mark.parametrize("sort", ["newest", "oldest", "name", "farthest"])
@pytest.mark.parametrize("limit", [1, 5, 12])
def test_pages_hold_every_evaluation_once_in_one_order(filled: SqlLedger, sort: str, limit: int) -> None:
    found = walked(filled, FleetQuery(sort=sort, limit=limit))
    assert sorted(found) == sorted(set(found))
    assert len(found) == COUNT
    assert found == walked(filled, FleetQuery(sort=sort, limit=COUNT))


def test_the_farthest_come_first_and_those_of_unknown_place_last(filled: SqlLedger) -> None:
    positions = [position for _, position in walked(filled, FleetQuery(sort="farthest", limit=4))]
    known = [p for p in positions if p is not None]
    assert known == sorted(known, reverse=True)
    assert positions[len(known) :] == [None] * (COUNT - len(known))


def test_a_page_tells_how_many_there_are_of_each_outcome_whatever_is_looked_at(filled: SqlLedger) -> None:
    page = filled.fleet(FleetQuery(outcome="blocked"))
    assert {row.evaluation.outcome for row in page.rows} == {"blocked"}
    assert page.counts == {"approved": 4, "blocked": 4, "open": 4}
    assert {row.evaluation.state for row in filled.fleet(FleetQuery(outcome="open")).rows} == {"requested"}


def test_names_are_found_by_a_part_whatever_its_case_and_signs(filled: SqlLedger) -> None:
    names = {row.evaluation.request.version.name for row in filled.fleet(FleetQuery(text="tEAM-1")).rows}
    assert names == {f"Team-1/chat_{n}" for n in (1, 4, 7, 10)}
    assert len(filled.fleet(FleetQuery(text="chat_")).rows) == COUNT
    assert filled.fleet(FleetQuery(text="chat%")).rows == []


def test_fine_tunes_of_one_base_are_found_by_its_digest(filled: SqlLedger) -> None:
    page = filled.fleet(FleetQuery(base_digest="b" * 64))
    assert len(page.rows) == 8
    assert {row.worst_change for row in page.rows} == {-0.3}
    assert filled.fleet(FleetQuery(base_digest="c" * 64)).rows == []


def test_a_place_in_another_order_is_refused(filled: SqlLedger) -> None:
    place = filled.fleet(FleetQuery(sort="name", limit=1)).next
    with pytest.raises(InvalidInput, match="begin with the first page"):
        filled.fleet(FleetQuery(sort="newest", after=place))


def test_jobs_at_work_tell_who_holds_them_and_how_far_they_are(ledger: SqlLedger) -> None:
    ledger.enqueue([JobRequest("measure:a", MEASURE, GPU_QUEUE), JobRequest("measure:b", MEASURE, GPU_QUEUE)], 10)
    claim = ledger.claim("measure:b", "worker-1", 60, 20)
    ledger.renew(claim, 60, 21, {"stage": "behaviour", "fraction": 0.5})

    held, queued = (job for job in ledger.at_work() if job.kind == MEASURE)

    assert (held.key, held.owner, held.stage, held.fraction) == ("measure:b", "worker-1", "behaviour", 0.5)
    assert (queued.key, queued.state, queued.owner, queued.fraction) == ("measure:a", "queued", None, 0.0)


def test_each_text_of_a_policy_tells_since_when_and_how_often_it_judged(filled: SqlLedger) -> None:
    (use,) = filled.policy_uses()
    assert (use.policy, use.digest, use.since) == ("default", "d" * 64, 1000.0)
    assert use.counts == {"approved": 4, "blocked": 4, "open": 4}
