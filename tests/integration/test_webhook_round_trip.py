"""Register in a real MLflow → its own webhook → the API → the ledger → the dispatcher → MLflow again."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn
from builders import a_verdict, an_evidence
from fakes import FakeQueue
from held_ports import free_port
from mlflow import MlflowClient

from gate.adapters.metrics import DispatcherMetrics, Metrics
from gate.adapters.mlflow_registry import WEBHOOK_NAME, MlflowRegistry
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.dispatcher import Dispatcher
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.overview import EvaluationRow
from gate.domain.verdict import Outcome
from gate.settings import Settings

SECRET = "a secret of this test"


@dataclass
class House:
    """MLflow, the API on a real port, the ledger, and a dispatcher that steps when told."""

    client: MlflowClient
    ledger: SqlLedger
    registry: MlflowRegistry
    dispatcher: Dispatcher
    metrics: Metrics

    def register(self, name: str, **tags: str) -> None:
        run = self.client.create_run("0")
        self.client.log_text(run.info.run_id, "{}", "model/config.json")
        self.client.create_registered_model(name)
        self.client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags)

    def evaluation(self, name: str) -> EvaluationRow | None:
        return next(iter(self.ledger.evaluations(1, name=name)), None)

    def judge(self, row: EvaluationRow, outcome: Outcome) -> None:
        now, key = time.time(), row.request.key
        inspect = self.ledger.claim(inspect_key(key), "w", 60, now)
        self.ledger.save_evidence(inspect, an_evidence(), now)
        self.ledger.note(key, now, evidence_key=an_evidence().key)
        self.ledger.finish(inspect, now)
        claim = self.ledger.claim(judge_key(key), "w", 60, now)
        verdict = a_verdict(
            subject=row.request.version.identity, outcome=outcome, judged_at=int(now), expires_at=int(now) + 86_400
        )
        envelopes = {"summary": {"payload": "s"}, "measurement": {"payload": "m"}}
        self.ledger.save_verdict(claim, key, verdict, envelopes, now)
        self.ledger.finish(claim, now)


@pytest.fixture
def house(mlflow_server, tmp_path) -> Iterator[House]:
    url, port = f"sqlite:///{tmp_path}/ledger.db", free_port()
    migrate(url)
    settings = Settings(
        mlflow_tracking_uri=mlflow_server.uri, public_url=f"http://127.0.0.1:{port}", webhook_secrets=SECRET
    )
    ledger, registry, metrics = SqlLedger(url), MlflowRegistry(settings), Metrics()
    door = Door(
        ledger=ledger,
        registry=registry,
        policies=load_policies(),
        secrets=(SECRET,),
        clock=time.time,
        metrics=metrics,
        broker=lambda: None,
    )
    server = uvicorn.Server(uvicorn.Config(create_app(door, Access(None)), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    dispatcher = Dispatcher(ledger, FakeQueue(), registry, door.policies, settings, metrics=DispatcherMetrics())
    client = MlflowClient(mlflow_server.uri, mlflow_server.uri)
    yield House(client, ledger, registry, dispatcher, metrics)
    for hook in client.list_webhooks():
        client.delete_webhook(hook.webhook_id)
    server.should_exit = True
    thread.join()
    ledger.close()


def until(true: Callable[[], object], limit_s: float = 300.0) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.mark.parametrize("odd", ["plain", "a b 模型 ✓"])
def test_a_registration_travels_to_the_ledger_and_its_verdict_back_to_mlflow(house, odd):
    name = f"{odd} {uuid.uuid4().hex[:6]}"
    house.dispatcher.step()
    house.register(name, team="nlp")
    until(lambda: house.evaluation(name))
    row = house.evaluation(name)
    assert row.request.version == house.registry.version(name, "1")
    house.judge(row, Outcome.APPROVED)
    house.dispatcher.step()
    written = house.client.get_model_version(name, "1")
    run = house.client.get_run(written.tags["gate.run_id"])
    assert (written.tags["gate.verdict"], written.tags["team"]) == ("approved", "nlp")
    assert house.client.get_model_version_by_alias(name, "approved").version == "1"
    assert run.data.params["suite"] == "staged"
    assert run.data.metrics["retention/safety.upper"] == pytest.approx(0.03)
    artifacts = {a.path for a in house.client.list_artifacts(run.info.run_id)}
    assert {"report.html", "report.md", "evidence.json", "verdict.json", "attestations", "bom.cdx.json"} <= artifacts
    assert house.evaluation(name).projected


def test_mlflows_own_test_of_the_webhook_succeeds(house):
    house.dispatcher.step()
    hook = next(h for h in house.client.list_webhooks() if h.name == WEBHOOK_NAME)
    tested = house.client.test_webhook(hook.webhook_id)
    assert (tested.success, tested.response_status) == (True, 200)
    assert house.evaluation("example_model") is None


def test_a_protected_alias_set_in_mlflow_reaches_the_gate_as_a_promotion_attempt(house):
    name = uuid.uuid4().hex
    house.dispatcher.step()
    house.register(name)
    house.client.set_registered_model_alias(name, "champion", "1")
    counted = ("gate_promotion_attempts_total", {"version": "unapproved"})
    until(lambda: house.metrics.registry.get_sample_value(*counted) == 1)


def test_a_version_whose_webhook_was_deleted_is_found_by_the_reconciler(house):
    name = uuid.uuid4().hex
    house.register(name)
    assert house.evaluation(name) is None
    house.dispatcher.step()
    assert house.evaluation(name) is not None
