"""A verdict whose base or suite became another is opened again, once, and only the new verdict speaks for the version."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import a_checkpoint, a_verdict, a_version, an_evidence
from fakes import FakeClock, FakeQueue, FakeRegistry
from ledger_desk import REQUEST, Desk, run_sql

from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.adapters.standing import Standing
from gate.api.views import EvaluationView
from gate.dispatcher import Dispatcher
from gate.domain.checkpoint import Base
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.glass import BrokenGlass
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.overview import EvaluationRow, FleetQuery
from gate.domain.permission import Decision
from gate.domain.reopening import Against, occasion_for
from gate.domain.verdict import Outcome, Review, ReviewDecision
from gate.settings import Settings

OLD, NEW, SUITE, CHANGED = ("b" * 64, "9" * 64, "c" * 64, "8" * 64)


def onboarded(digest: str = OLD, suite: str = SUITE) -> Base:
    return Base(name="tiny", digest=digest, source="/x", suite="staged", checkpoint=a_checkpoint(), suite_digest=suite)


def judge(ledger: SqlLedger, request: EvaluationRequest, base: Base | None, outcome: Outcome, now: float) -> None:
    """What workers do with an evaluation, from its inspection to its verdict."""
    key, evidence = request.key, an_evidence(key=request.key)
    inspect = ledger.claim(inspect_key(key), "w", 60, now)
    assert inspect is not None
    ledger.save_evidence(inspect, evidence, now)
    ledger.note(key, now, claim=inspect, evidence_key=key, base=base)
    ledger.finish(inspect, now)
    claim = ledger.claim(judge_key(key), "w", 60, now)
    assert claim is not None
    given = {"evidence_key": key, "base_digest": base.digest if base else None, "outcome": outcome}
    verdict = a_verdict(subject=request.version.identity, expires_at=int(now) + 86_400, **given)
    ledger.save_verdict(claim, key, verdict, {"summary": {"of": key}}, now)
    ledger.finish(claim, now)


@dataclass
class Bench:
    """A dispatcher beside a registry with one judged version; workers are played by `judge`."""

    ledger: SqlLedger
    url: str

    def __post_init__(self) -> None:
        self.clock, self.registry, self.policies = FakeClock(), FakeRegistry(), load_policies()
        settings = Settings(reconcile_every_s=15)
        self.dispatcher = Dispatcher(self.ledger, FakeQueue(), self.registry, self.policies, settings, clock=self.clock)
        self.version = self.registry.add(a_version(created_ms=int(1000 * self.clock.now)))
        self.ledger.save_base(onboarded(), self.clock.now)
        self.sweep()
        self.judge(onboarded())
        self.sweep()

    def sweep(self, times: int = 2) -> None:
        for _ in range(times):
            self.clock.now += 16
            self.dispatcher.step()

    def judge(self, base: Base | None, outcome: Outcome = Outcome.APPROVED) -> None:
        judge(self.ledger, self.standing.request, base, outcome, self.clock.now)

    @property
    def standing(self) -> EvaluationRow:
        """The evaluation that speaks for the version."""
        row = Standing(self.ledger, self.policies).position(self.version, self.clock.now).row
        assert row is not None
        return row

    @property
    def decision(self) -> Decision:
        return Standing(self.ledger, self.policies).answer(self.version, self.clock.now).decision

    def asked(self) -> int:
        return len(self.ledger.evaluations(100))

    def audited(self) -> list[str]:
        return [e.event for e in self.ledger.audit_entries() if e.event == "verdict opened again"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    made = Bench(SqlLedger(url), url)
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    "now", [pytest.param(onboarded(NEW), id="base"), pytest.param(onboarded(suite=CHANGED), id="suite")]
)
def test_a_changed_base_or_suite_opens_the_verdict_again_once(bench: Bench, now: Base) -> None:
    first = bench.standing.request.key
    bench.sweep()
    assert (bench.asked(), bench.decision) == (1, Decision.ALLOWED)

    bench.ledger.save_base(now, bench.clock.now)
    bench.sweep(times=3)

    again = bench.standing
    assert (bench.asked(), bench.audited()) == (2, ["verdict opened again"])
    assert (again.request.key == first, again.request.root, bench.decision) == (False, first, Decision.PENDING)

    bench.judge(now, Outcome.BLOCKED)
    bench.sweep(times=3)
    assert (bench.asked(), bench.decision) == (2, Decision.DENIED)


def test_while_it_is_evaluated_again_the_promotion_stands_and_is_no_bypass(bench: Bench) -> None:
    bench.registry.pointers[bench.version.name, "champion"] = bench.version.version
    bench.ledger.save_base(onboarded(NEW), bench.clock.now)
    bench.sweep(times=4)
    drifts = [e.event for e in bench.ledger.audit_entries() if e.event.startswith("promoted")]
    assert drifts == []

    bench.judge(onboarded(NEW), Outcome.BLOCKED)
    bench.sweep(times=4)
    drifts = [e.event for e in bench.ledger.audit_entries() if e.event.startswith("promoted")]
    assert drifts == ["promoted on an approval that a later verdict withdrew"]


def test_a_base_that_comes_back_opens_the_verdict_once_more(bench: Bench) -> None:
    for number, base in enumerate([onboarded(NEW), onboarded(), onboarded(NEW)], start=2):
        bench.ledger.save_base(base, bench.clock.now)
        bench.sweep()
        assert bench.asked() == number
        bench.judge(base)
        bench.sweep()
    bench.sweep(times=3)
    assert (bench.asked(), bench.decision) == (4, Decision.ALLOWED)


def test_a_base_that_was_removed_is_one_that_is_not_found(bench: Bench) -> None:
    run_sql(bench.url, "DELETE FROM base")
    bench.sweep()
    assert EvaluationView.of(bench.standing).opened_again == "its base tiny is no longer onboarded"

    bench.judge(None, Outcome.NEEDS_REVIEW)
    bench.sweep(times=3)
    assert (bench.asked(), bench.decision) == (2, Decision.NEEDS_REVIEW)


def test_an_older_verdict_written_late_does_not_overwrite_the_newer(bench: Bench) -> None:
    first = bench.standing.request.key
    bench.ledger.save_base(onboarded(NEW), bench.clock.now)
    bench.sweep()
    bench.judge(onboarded(NEW), Outcome.BLOCKED)
    bench.sweep()
    bench.ledger.project(first, bench.clock.now)
    bench.sweep()
    shown = bench.registry.version(bench.version.name, bench.version.version)
    assert shown.tags["gate.verdict"] == "blocked"


def opened_again(desk: Desk) -> EvaluationRequest:
    """A version that needs review, and the request that takes the place of that evaluation."""
    desk.ledger.request_evaluation(REQUEST, desk.now)
    judge(desk.ledger, REQUEST, onboarded(), Outcome.NEEDS_REVIEW, desk.now)
    occasion = occasion_for(Against("tiny", OLD, SUITE), [onboarded(NEW)])
    assert occasion is not None
    again = REQUEST.again(occasion)
    assert desk.ledger.request_evaluation(again, desk.now)
    assert not desk.ledger.request_evaluation(again, desk.now)
    return again


def test_nobody_decides_on_a_verdict_that_was_opened_again(desk: Desk) -> None:
    again = opened_again(desk)
    verdict, _ = desk.ledger.verdict(REQUEST.key) or pytest.fail("the first verdict is gone")
    review = Review(
        decision=ReviewDecision.APPROVE, reviewer="ana", reason="x", decided_at=1, verdict_digest=verdict.digest
    )
    glass = BrokenGlass(
        by="ana", reason="x", ticket="INC-1", at=1, expires_at=2, review_by=2, verdict_digest=verdict.digest
    )

    with pytest.raises(InvalidInput, match="opened again since"):
        desk.ledger.ask_review(REQUEST.key, review, desk.now)
    with pytest.raises(InvalidInput, match="opened again since"):
        desk.ledger.break_glass(REQUEST.key, verdict.candidate_digest, glass, desk.now)

    waiting = desk.ledger.fleet(FleetQuery(outcome="needs_review", standing=True))
    assert [row.evaluation.request.key for row in waiting.rows] == []
    row = desk.ledger.evaluation_of(REQUEST.version.identity, REQUEST.policy_digest)
    assert row is not None
    assert (row.request, row.outcome) == (again, None)


def test_of_many_versions_the_ledger_tells_what_speaks_for_each(desk: Desk) -> None:
    again = opened_again(desk)
    judge(desk.ledger, again, onboarded(NEW), Outcome.APPROVED, desk.now)

    kept = desk.ledger.kept([REQUEST.key, "f" * 64])

    assert set(kept) == {REQUEST.key}
    found = kept[REQUEST.key]
    assert (found.key, found.outcome, found.summary) == (again.key, "approved", {"of": again.key})
    assert found.against == Against("tiny", NEW, SUITE, 1)
