"""The dispatcher over a real ledger (SQLite), a registry and a broker in memory."""

from dataclasses import dataclass

import pytest
from builders import a_checkpoint, a_verdict, a_version, an_evidence
from fakes import FakeClock, FakeQueue, FakeRegistry

from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.dispatcher import Dispatcher
from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_VERDICT
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome
from gate.settings import Settings

ENVELOPES = {"summary": {"payload": "s"}, "measurement": {"payload": "m"}}


@dataclass
class Bench:
    """A dispatcher and everything it drives."""

    ledger: SqlLedger
    queue: FakeQueue
    registry: FakeRegistry
    clock: FakeClock
    metrics: DispatcherMetrics

    def __post_init__(self) -> None:
        self.policies = load_policies()
        self.dispatcher = self.another()

    def another(self, metrics: DispatcherMetrics | None = None) -> Dispatcher:
        settings = Settings(webhook_secrets="s1", public_url="http://gate", reconcile_every_s=15, lease_s=60)
        return Dispatcher(
            self.ledger,
            self.queue,
            self.registry,
            self.policies,
            settings,
            clock=self.clock,
            metrics=metrics or self.metrics,
        )

    def step(self, after_s: float = 0.0) -> int:
        self.clock.now += after_s
        return self.dispatcher.step()

    def request(self, version: ModelVersion) -> str:
        policy = self.policies.policies[0]
        request = EvaluationRequest.of(version, policy.name, policy.digest)
        self.ledger.request_evaluation(request, self.clock())
        return request.key

    def judge(self, version: ModelVersion, outcome: Outcome = Outcome.APPROVED, measured: bool = True) -> str:
        key = self.request(version)
        inspect = self.ledger.claim(inspect_key(key), "w", 60, self.clock())
        if measured:
            self.ledger.save_evidence(inspect, an_evidence(), self.clock())
            self.ledger.note(key, self.clock(), evidence_key=an_evidence().key)
        self.ledger.finish(inspect, self.clock())
        claim = self.ledger.claim(judge_key(key), "w", 60, self.clock())
        verdict = a_verdict(subject=version.identity, outcome=outcome, expires_at=int(self.clock()) + 10**6)
        self.ledger.save_verdict(claim, key, verdict, ENVELOPES, self.clock())
        self.ledger.finish(claim, self.clock())
        return key

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def audited(self) -> str:
        with self.ledger._database.engine.connect() as connection:
            return str(connection.exec_driver_sql("select event, detail from audit order by seq").all())


@pytest.fixture
def bench(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    made = Bench(SqlLedger(url), FakeQueue(), FakeRegistry(), FakeClock(), DispatcherMetrics())
    yield made
    made.ledger.close()


def test_a_queued_jobs_doorbell_is_rung_with_its_key_alone(bench):
    key = bench.request(bench.registry.add(a_version()))
    bench.step()
    assert bench.queue.rung == [("cpu", "inspect", inspect_key(key))]
    bench.step()
    assert len(bench.queue.rung) == 1


def test_a_doorbell_the_broker_did_not_take_is_rung_later(bench):
    bench.request(bench.registry.add(a_version()))
    bench.queue.away = True
    assert bench.step() == 0
    bench.queue.away = False
    bench.step(after_s=5)
    assert len(bench.queue.rung) == 1
    assert bench.sample("gate_doorbells_total", result="failed") == 1


def test_a_doorbell_that_was_lost_is_rung_again(bench):
    bench.request(bench.registry.add(a_version()))
    bench.step()
    bench.queue.rung.clear()
    bench.step(after_s=40)
    bench.step(after_s=1)
    assert len(bench.queue.rung) == 1


def test_a_verdict_is_written_with_its_run_tags_block_and_alias(bench):
    version = bench.registry.add(a_version(description="Mine."))
    key = bench.judge(version)
    bench.step()
    written = bench.registry.version("my-llm", "3")
    record = bench.registry.runs[key]
    assert written.tags[TAG_VERDICT] == "approved"
    assert written.tags["gate.run_id"] == "run-0"
    assert written.tags[TAG_ATTESTATION] == '{"payload":"s"}'
    assert written.aliases == ("approved",)
    assert written.description.startswith("Mine.\n\nBasin Gate: approved")
    assert {"report.html", "report.md", "evidence.json", "verdict.json", "attestations/summary.dsse.json"} <= set(
        record.artifacts
    )
    assert bench.ledger.evaluation(key).projected
    assert bench.ledger.evaluation(key).run_id == "run-0"


@pytest.mark.parametrize("cut", range(9))
def test_a_projection_cut_off_anywhere_and_repeated_ends_the_same(bench, cut):
    version = bench.registry.add(a_version())
    bench.judge(version)
    bench.registry.fail_after = cut
    bench.step()
    bench.registry.fail_after = None
    bench.step(after_s=5)
    written = bench.registry.version("my-llm", "3")
    assert (written.tags[TAG_VERDICT], written.aliases, len(bench.registry.runs)) == ("approved", ("approved",), 1)
    assert written.description.count("Basin Gate: ") == 1


def test_a_blocked_version_gets_no_alias_and_loses_the_gates_own(bench):
    version = bench.registry.add(a_version())
    bench.registry.pointers["my-llm", "approved"] = "3"
    bench.judge(version, Outcome.BLOCKED)
    bench.step()
    assert bench.registry.version("my-llm", "3").aliases == ()


def test_the_alias_stays_on_the_newest_approved_version_whatever_the_order_of_the_verdicts(bench):
    old, new = (bench.registry.add(a_version(version=n, created_ms=int(n))) for n in ("2", "10"))
    bench.judge(new)
    bench.step()
    bench.judge(old)
    bench.step()
    assert bench.registry.pointers["my-llm", "approved"] == "10"


def test_the_alias_is_taken_from_a_newer_version_that_was_not_approved(bench):
    old, new = (bench.registry.add(a_version(version=n, created_ms=int(n))) for n in ("2", "10"))
    bench.judge(new, Outcome.BLOCKED)
    bench.step()
    bench.registry.pointers["my-llm", "approved"] = "10"
    bench.judge(old)
    bench.step()
    assert bench.registry.pointers["my-llm", "approved"] == "2"


def test_a_verdict_on_files_that_could_not_be_looked_at_is_written_too(bench):
    version = bench.registry.add(a_version())
    key = bench.judge(version, Outcome.ERROR, measured=False)
    bench.step()
    assert bench.registry.version("my-llm", "3").tags[TAG_VERDICT] == "error"
    assert b'"measurements": []' in bench.registry.runs[key].artifacts["evidence.json"]


def test_an_evaluation_that_ended_without_a_verdict_is_written_as_error(bench):
    key = bench.request(bench.registry.add(a_version()))
    bench.ledger.finish(bench.ledger.claim(inspect_key(key), "w", 60, bench.clock()), bench.clock())
    bench.ledger.fail(bench.ledger.claim(judge_key(key), "w", 60, bench.clock()), bench.clock(), error="no signing key")
    bench.step()
    written = bench.registry.version("my-llm", "3")
    assert (written.tags[TAG_VERDICT], written.tags[TAG_ATTESTATION]) == ("error", "none")
    assert "no signing key" in written.tags["gate.reason"]


def test_a_verdict_on_a_version_that_was_deleted_or_made_again_is_moot(bench):
    bench.judge(bench.registry.add(a_version()))
    bench.registry.add(a_version(created_ms=1_795_000_000_001))
    bench.step()
    assert bench.registry.version("my-llm", "3").tags == {}
    bench.judge(a_version(version="77"))
    bench.step()
    assert bench.sample("gate_projections_total", result="moot") == 2


def test_a_verdict_on_a_version_that_became_a_base_is_moot(bench):
    version = bench.registry.add(a_version())
    bench.judge(version)
    base = Base(name="base", digest="b" * 64, source=version.uri, suite="staged", checkpoint=a_checkpoint())
    bench.ledger.save_base(base, bench.clock())
    bench.step()
    assert bench.registry.version("my-llm", "3").tags == {}


def test_a_verdict_that_became_moot_is_told_once_and_never_mended(bench):
    version = bench.registry.add(a_version())
    bench.judge(version)
    base = Base(name="base", digest="b" * 64, source=version.uri, suite="staged", checkpoint=a_checkpoint())
    bench.ledger.save_base(base, bench.clock())
    for _ in range(4):
        bench.step(after_s=20)
    assert bench.sample("gate_reconciliations_total", result="done") == 4
    assert bench.sample("gate_projections_total", result="moot") == 1
    assert "projection mended" not in bench.audited()


def test_a_registry_that_is_away_delays_the_verdict_and_the_dispatcher_goes_on(bench):
    bench.judge(bench.registry.add(a_version()))
    bench.registry.away = True
    bench.step()
    bench.registry.away = False
    bench.step(after_s=5)
    assert bench.registry.version("my-llm", "3").tags[TAG_VERDICT] == "approved"


def test_an_outbox_item_of_an_unknown_kind_stops_nothing(bench):
    bench.ledger.enqueue([JobRequest("inspect:x", "inspect", "cpu")], bench.clock())
    with bench.ledger._database.engine.begin() as connection:
        connection.exec_driver_sql("update outbox set kind = 'riddle'")
    bench.request(bench.registry.add(a_version()))
    assert bench.step() == 1


def test_the_reconciler_asks_for_versions_no_webhook_told_of(bench):
    bench.registry.add(a_version(name="täm / modèl"))
    bench.registry.add(a_version(name="hidden"))
    bench.registry.add(a_version(name="greeting", source="prompt-template"))
    bench.registry.hidden.add("hidden")
    bench.step()
    assert {row.request.version.name for row in bench.ledger.evaluations()} == {"täm / modèl", "hidden"}
    assert bench.sample("gate_missed_versions_total") == 2


def test_the_webhook_is_made_at_once_and_made_again_when_it_is_gone(bench):
    bench.step()
    assert bench.registry.webhook == ("http://gate/webhooks/mlflow", "s1")
    bench.registry.webhook = None
    bench.step(after_s=16)
    assert bench.registry.webhook is not None
    assert bench.audited().count("webhook created") == 2
    assert bench.ledger.statistics(bench.clock()).facts["webhook created"] == 1


def test_a_protected_alias_moved_behind_the_gates_back_is_reported_once(bench):
    bench.registry.add(a_version())
    bench.registry.pointers["my-llm", "Champion"] = "3"
    bench.step()
    bench.step(after_s=16)
    assert bench.ledger.statistics(bench.clock()).figures["drifted"] == 1
    assert bench.audited().count("promoted without approval") == 1


def test_an_approved_version_under_a_protected_alias_is_no_drift(bench):
    bench.judge(bench.registry.add(a_version()))
    bench.registry.pointers["my-llm", "champion"] = "3"
    bench.step()
    assert bench.ledger.statistics(bench.clock()).figures["drifted"] == 0


def test_a_version_promoted_by_stage_behind_the_gates_back_is_reported(bench):
    bench.registry.add(a_version(stage="Production"))
    bench.step()
    assert bench.ledger.statistics(bench.clock()).figures["drifted"] == 1


def test_a_verdicts_tags_that_somebody_deleted_are_written_again(bench):
    bench.judge(bench.registry.add(a_version()))
    bench.step()
    bench.registry.add(a_version())
    for _ in range(21):
        bench.step(after_s=16)
    assert bench.registry.version("my-llm", "3").tags[TAG_VERDICT] == "approved"


def test_one_dispatcher_leads_until_its_lease_ends(bench):
    bench.step()
    second = bench.another(DispatcherMetrics())
    bench.request(bench.registry.add(a_version()))
    assert second.step() == 0
    bench.clock.now += 61
    assert second.step() == 1
    assert bench.dispatcher.step() == 0


def test_a_dispatcher_that_stops_lets_the_next_one_lead_at_once(bench):
    bench.step()
    second = bench.another(DispatcherMetrics())
    bench.request(bench.registry.add(a_version()))
    assert second.step() == 0
    bench.dispatcher.hand_over()
    bench.clock.now += 0.1
    assert second.step() == 1
    second.hand_over()
    bench.dispatcher.hand_over()
    bench.clock.now += 0.1
    assert bench.dispatcher.step() == 0
    assert second.step() == 0
