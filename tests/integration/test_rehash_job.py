"""The files of a promoted version hashed again by the worker's own job: what was changed voids the approval."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from approvals import a_key
from builders import a_checkpoint, a_verdict
from fakes import FakeClock
from mlflow import MlflowClient
from mlflow_server import MlflowServer

from gate.adapters.folder_digests import folder_digests
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.adapters.standing import Standing
from gate.dispatcher.promotions import PromotionWatch
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import CPU_QUEUE, REHASH, inspect_key, judge_key, rehash_key
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome
from gate.settings import Settings
from tasks.running import run_job

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "deep/vocab.txt": b"a b"}
DAY_S = 86_400.0


@dataclass
class Promoted:
    """An approved version with files on a real MLflow server, and the ledger that approved it."""

    client: MlflowClient
    settings: Settings
    ledger: SqlLedger
    registry: MlflowRegistry
    clock: FakeClock
    version: ModelVersion
    evaluation: str
    run_id: str

    def overwrite(self, path: str, content: bytes) -> None:
        folder = str(Path("model") / Path(path).parent)
        local = self.settings.state_dir / Path(path).name
        local.write_bytes(content)
        self.client.log_artifact(self.run_id, str(local), folder)

    def rehash(self, occasion: str) -> tuple[str, dict[str, object] | None]:
        key = rehash_key(self.evaluation, occasion)
        self.ledger.enqueue([JobRequest(key, REHASH, CPU_QUEUE, {"evaluation": self.evaluation})], self.clock())
        ended = run_job(key, "worker", self.ledger, self.settings)
        found = self.ledger.job_result(key)
        assert found is not None
        return ended, dict(found[1]) if found[1] else None

    def answer(self) -> str:
        return Standing(self.ledger, load_policies()).answer(self.version, self.clock()).reason


@pytest.fixture
def promoted(mlflow_server: MlflowServer, tmp_path: Path) -> Promoted:
    private, _ = a_key(tmp_path)
    client, clock = MlflowClient(mlflow_server.uri, mlflow_server.uri), FakeClock()
    settings = Settings(
        mlflow_tracking_uri=mlflow_server.uri, state_dir=tmp_path, signing_key_file=private, rehash_every_s=DAY_S
    )
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    ledger, registry = SqlLedger(f"sqlite:///{tmp_path}/ledger.db"), MlflowRegistry(settings)
    made = tmp_path / "made"
    for path, content in FILES.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(content)
    run, name = client.create_run("0").info, f"rehashed {uuid.uuid4().hex[:6]}"
    client.log_artifacts(run.run_id, str(made), "model")
    client.create_registered_model(name)
    client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id)
    version, policy = registry.version(name, "1"), load_policies().policies[0]
    request = EvaluationRequest.of(version, policy.name, policy.digest)
    ledger.request_evaluation(request, clock())
    ledger.finish(ledger.claim(inspect_key(request.key), "w", 60, clock()), clock())
    claim = ledger.claim(judge_key(request.key), "w", 60, clock())
    verdict = a_verdict(
        subject=version.identity,
        outcome=Outcome.APPROVED,
        candidate_digest=a_checkpoint(files=folder_digests(made)).digest,
        judged_at=int(clock()),
        expires_at=int(clock() + 30 * DAY_S),
    )
    ledger.save_verdict(claim, request.key, verdict, {"summary": {}}, clock())
    ledger.finish(claim, clock())
    return Promoted(client, settings, ledger, registry, clock, version, request.key, run.run_id)


def test_files_left_alone_keep_their_approval(promoted: Promoted) -> None:
    assert promoted.rehash("1") == ("done", {"changed": False})
    assert promoted.ledger.revocations() == []
    assert not list((promoted.settings.state_dir / "cache" / "rehashed").iterdir())


@pytest.mark.parametrize(("path", "content"), [("model.safetensors", b"WEIGHTS"), ("deep/added.txt", b"")])
def test_one_changed_byte_or_added_file_voids_the_approval_of_this_version_alone(
    promoted: Promoted, path: str, content: bytes
) -> None:
    promoted.overwrite(path, content)

    ended, result = promoted.rehash("1")

    assert (ended, result["changed"]) == ("done", True)
    [revocation] = promoted.ledger.revocations()
    assert (revocation.subject, revocation.candidate_digest) == (promoted.version.identity, None)
    assert "its artifacts were changed after the verdict" in promoted.answer()
    assert promoted.rehash("2") == ("done", {"changed": None})


def test_a_registry_that_does_not_answer_voids_nothing(promoted: Promoted, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the registry is away")

    monkeypatch.setattr(MlflowRegistry, "fetch", away)

    assert promoted.rehash("1")[0] == "retried"
    assert promoted.ledger.revocations() == []


def test_each_promoted_version_is_asked_for_once_a_period_and_at_once_when_its_listing_differs(
    promoted: Promoted,
) -> None:
    promoted.client.set_registered_model_alias(promoted.version.name, "champion", "1")
    standing = Standing(promoted.ledger, load_policies())
    metrics = DispatcherMetrics()
    watch = PromotionWatch(standing, promoted.registry, promoted.clock, metrics, rehash_every_s=DAY_S)
    asked = []
    for _ in range(3):
        for _ in range(2):
            watch.read()
            watch.look()
        asked.append(
            sum(n for (queue, _), n in promoted.ledger.backlog(promoted.clock()).jobs.items() if queue == "cpu")
        )
        promoted.clock.now += DAY_S

    assert [count - asked[0] for count in asked] == [0, 1, 2]
