"""A newer version ends what nobody needs any more, on both databases: never what is begun, awaited, or rests together."""

from collections.abc import Iterator

import pytest
from builders import a_version, an_evidence
from fakes import FakeClock, FakeQueue, FakeRegistry

from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.adapters.standing import Standing
from gate.dispatcher import Dispatcher
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_VERDICT
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import JUDGE, inspect_key, judge_key, measure_key
from gate.domain.overview import EvaluationRow, FleetQuery
from gate.domain.permission import Decision
from gate.domain.records import JobRequest
from gate.domain.scheduling import AWAITED_S
from gate.settings import Settings

POLICIES = load_policies()
POLICY = POLICIES.policies[0]


class Desk:
    """A ledger and versions of one registered model, each a minute newer than the one before."""

    def __init__(self, url: str) -> None:
        migrate(url)
        self.ledger, self.registry, self.clock = SqlLedger(url), FakeRegistry(), FakeClock()
        self.made = 0

    def ask(self, name: str = "my-llm", policy: str = POLICY.name) -> EvaluationRequest:
        self.made += 1
        self.clock.now += 60
        made = a_version(name=name, version=str(self.made), created_ms=1_795_000_000_000 + 1000 * self.made)
        version: ModelVersion = self.registry.add(made)
        request = EvaluationRequest.of(version, policy, POLICY.digest)
        assert self.ledger.request_evaluation(request, self.clock())
        return request

    def inspected(self, request: EvaluationRequest, evidence_key: str) -> None:
        """Its inspection is done, and asks for a measurement."""
        claim = self.ledger.claim(inspect_key(request.key), "w", 60, self.clock())
        assert claim is not None
        evidence = an_evidence(key=evidence_key)
        self.ledger.save_evidence(claim, evidence, self.clock())
        self.ledger.note(request.key, self.clock(), evidence_key=evidence.key)
        measure = JobRequest(measure_key(evidence.key), "measure", "gpu", {})
        judge = JobRequest(judge_key(request.key), JUDGE, "cpu", {}, waits_for=measure.key)
        self.ledger.finish(claim, self.clock(), then=(measure, judge))

    def cancel(self) -> int:
        return self.ledger.cancel_superseded(self.clock())

    def row(self, request: EvaluationRequest) -> EvaluationRow:
        row = self.ledger.evaluation(request.key)
        assert row is not None
        return row

    def state(self, key: str) -> str:
        return (self.ledger.job_result(key) or ("",))[0]


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    desk = Desk(database_url)
    yield desk
    desk.ledger.close()


def test_only_the_newest_version_is_left_and_the_others_say_which_took_their_place(desk: Desk) -> None:
    first, second, third = desk.ask(), desk.ask(), desk.ask()
    assert desk.cancel() == 2
    assert desk.cancel() == 0
    for old in (first, second):
        row = desk.row(old)
        assert (row.state, row.outcome) == ("done", "error")
        assert "superseded by version 3" in (row.reason or "")
    assert desk.row(third).outcome is None
    assert desk.ledger.verdict(first.key) is None


def test_a_superseded_version_is_denied_and_never_judged(desk: Desk) -> None:
    first = desk.ask()
    desk.ask()
    desk.cancel()
    answer = Standing(desk.ledger, POLICIES).answer(first.version, desk.clock())
    assert answer.decision is Decision.DENIED
    assert "superseded by version 2" in answer.reason
    desk.clock.now += 1e6
    desk.ledger.sweep(desk.clock(), ring_after_s=0.0, max_attempts=4)
    for key in (inspect_key(first.key), judge_key(first.key)):
        assert desk.state(key) == "failed"
        assert desk.ledger.claim(key, "w", 60, desk.clock()) is None


def test_what_is_being_inspected_or_measured_goes_on(desk: Desk) -> None:
    first, second = desk.ask(), desk.ask()
    assert desk.ledger.claim(inspect_key(first.key), "w", 1e6, desk.clock()) is not None
    desk.inspected(second, "e" * 64)
    assert desk.ledger.claim(measure_key("e" * 64), "w", 1e6, desk.clock()) is not None
    desk.ask()
    assert desk.cancel() == 0


def test_what_only_waits_to_be_measured_is_ended_with_its_measurement(desk: Desk) -> None:
    first = desk.ask()
    desk.inspected(first, "e" * 64)
    desk.ask()
    assert desk.cancel() == 1
    assert desk.state(measure_key("e" * 64)) == "failed"
    assert desk.state(judge_key(first.key)) == "failed"


def test_a_measurement_that_another_version_rests_on_is_kept(desk: Desk) -> None:
    first, other = desk.ask(), desk.ask(name="another")
    for request in (first, other):
        desk.inspected(request, "e" * 64)
    desk.ask()
    assert desk.cancel() == 0
    assert desk.state(measure_key("e" * 64)) == "queued"


def test_what_is_about_to_be_judged_is_judged(desk: Desk) -> None:
    first = desk.ask()
    claim = desk.ledger.claim(inspect_key(first.key), "w", 60, desk.clock())
    assert claim is not None
    desk.ledger.finish(claim, desk.clock())
    desk.ask()
    assert desk.cancel() == 0


def test_a_version_that_somebody_waits_for_is_not_ended_while_they_wait(desk: Desk) -> None:
    first = desk.ask()
    desk.ask()
    desk.ledger.await_verdict(first.key, desk.clock())
    assert desk.cancel() == 0
    desk.clock.now += AWAITED_S + 1
    assert desk.cancel() == 1


def test_versions_of_other_models_or_under_other_policies_supersede_nothing(desk: Desk) -> None:
    desk.ask()
    desk.ask(name="another")
    desk.ask(policy="strict")
    assert desk.cancel() == 0


def test_the_same_bytes_asked_for_again_are_measured_after_all(desk: Desk) -> None:
    desk.inspected(desk.ask(), "e" * 64)
    desk.ask()
    desk.cancel()
    again = desk.ask()
    desk.inspected(again, "e" * 64)
    assert desk.state(measure_key("e" * 64)) == "queued"


def test_it_is_told_in_the_record_the_lists_and_the_metrics_apart_from_errors(desk: Desk) -> None:
    desk.ask()
    desk.ask()
    desk.cancel()
    told = [entry.event for entry in desk.ledger.audit_entries()]
    assert told.count("evaluation superseded") == 1
    assert desk.ledger.audit_break() is None
    assert desk.ledger.statistics(desk.clock()).outcomes == {"superseded": 1}
    assert desk.ledger.fleet(FleetQuery(outcome="error")).counts == {"error": 1, "open": 1}
    assert len(desk.ledger.fleet(FleetQuery(outcome="error")).rows) == 1


@pytest.mark.parametrize("wanted", [True, False])
def test_the_dispatcher_ends_them_where_that_is_wanted_and_tells_mlflow(desk: Desk, wanted: bool) -> None:
    settings = Settings(cancel_superseded=wanted, webhook_secrets="whsec-test")
    dispatcher = Dispatcher(desk.ledger, FakeQueue(), desk.registry, POLICIES, settings, clock=desk.clock)
    first, second = desk.ask(), desk.ask()
    for _ in range(3):
        dispatcher.step()
        desk.clock.now += 20
    tags = desk.registry.version("my-llm", first.version.version).tags
    assert (tags.get(TAG_VERDICT), tags.get(TAG_ATTESTATION)) == (("error", "none") if wanted else (None, None))
    assert desk.row(second).outcome is None
