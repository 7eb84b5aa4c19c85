"""A guarded MLflow server with the gate's reconciler beside it, and everything an evader could have besides."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from approvals import a_key, an_attestation
from builders import a_verdict
from fakes import FakeClock, FakeQueue
from mlflow import MlflowClient
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow_server import MlflowServer

from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.policy_files import DEFAULT, load_policies
from gate.adapters.signing import DsseSigner
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.dispatcher import Dispatcher
from gate.domain.checkpoint import Checkpoint, ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_VERDICT, attestation_text
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.verdict import Outcome
from gate.settings import Settings

SWEEP_S = 15
PROTECTED_MODELS = ("prod.llm", "prod.chat")
LEADING = ("champion", "production", "approved")


@dataclass(frozen=True)
class Target:
    """A registered model with an approved version 1, which is its champion, and an unapproved version 2."""

    name: str
    good: ModelVersion
    bad: ModelVersion


class GuardedStand:
    """The server, clients of it, its database, the gate's keys and ledger, and a dispatcher under a clock of its own."""

    def __init__(self, folder: Path, workers: int = 1, database: str | None = None, also: str = "") -> None:
        self.private, self.public = a_key(folder)
        self.stranger, _ = a_key(folder, "stranger")
        self.policy_file = folder / "policy.yaml"
        text = DEFAULT.read_text().replace("on_bypass: alert", "on_bypass: restore")
        models = ", ".join(PROTECTED_MODELS)
        self.policy_file.write_text(
            text.replace("stages: [Production]", f"stages: [Production]\n  registered_models: [{models}]") + also
        )
        self.database = database or f"sqlite:///{folder}/mlflow.db"
        self.server = MlflowServer(
            folder,
            database=self.database,
            registry_uri=f"gate+{self.database}",
            workers=workers,
            environment={"GATE_TRUSTED_KEYS_FILE": str(self.public), "GATE_POLICIES": str(self.policy_file)},
        )
        self.server.start()
        self.uri, self.client = self.server.uri, MlflowClient(self.server.uri, self.server.uri)
        for name in PROTECTED_MODELS:
            self.client.create_registered_model(name)
        self.unguarded = SqlAlchemyStore(self.database)
        self.signer = DsseSigner(self.private)
        self.policies, self.clock = load_policies(self.policy_file), FakeClock(time.time())
        migrate(f"sqlite:///{folder}/ledger.db")
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db")
        self.settings = Settings(
            mlflow_tracking_uri=self.uri,
            webhook_secrets="whsec-test",
            public_url="http://127.0.0.1:9",
            trusted_keys_file=self.public,
            reconcile_every_s=SWEEP_S,
        )
        self.registry = MlflowRegistry(self.settings)
        self.queue = FakeQueue()
        self.dispatcher = self.a_dispatcher()

    def a_dispatcher(self) -> Dispatcher:
        return Dispatcher(self.ledger, self.queue, self.registry, self.policies, self.settings, clock=self.clock)

    def close(self) -> None:
        self.ledger.close()
        self.unguarded._dispose_engine()
        self.server.stop()

    # -- what there is

    def target(self) -> Target:
        name = f"größe {uuid.uuid4().hex[:8]}"
        self.client.create_registered_model(name)
        for number in ("1", "2"):
            self.client.create_model_version(name, f"s3://bucket/{name}/{number}", tags={"team": "nlp"})
        target = Target(name, self.registry.version(name, "1"), self.registry.version(name, "2"))
        self.approve(target.good)
        self.client.set_registered_model_alias(name, "champion", "1")
        return target

    def approve(self, version: ModelVersion, **changes: Any) -> str:
        """An approval in the ledger, already written to the registry as the projection does; its evaluation's key."""
        envelope = self.attestation(version.identity, **changes)
        key = self.judge(version, Outcome.APPROVED, json.loads(envelope))
        for tag, value in ((TAG_ATTESTATION, envelope), (TAG_VERDICT, "approved")):
            self.client.set_model_version_tag(version.name, version.version, tag, value)
        for item in self.ledger.outbox(self.clock()):
            if item.kind == "project" and item.payload["evaluation"] == key:
                self.ledger.outbox_done(item.seq, self.clock())
        return key

    def judge(self, version: ModelVersion, outcome: Outcome, summary: Mapping[str, Any], **changes: Any) -> str:
        policy, now = self.policies.policies[0], self.clock()
        request = EvaluationRequest.of(version, policy.name, policy.digest)
        self.ledger.request_evaluation(request, now)
        self.ledger.finish(self.ledger.claim(inspect_key(request.key), "w", 60, now), now)
        claim = self.ledger.claim(judge_key(request.key), "w", 60, now)
        given = {"subject": version.identity, "outcome": outcome, "expires_at": int(now) + 3600}
        verdict = a_verdict(**(given | changes))
        self.ledger.save_verdict(claim, request.key, verdict, {"summary": summary}, now)
        self.ledger.finish(claim, now)
        return request.key

    def attestation(
        self, identity: str, private: Path | None = None, candidate: Checkpoint | None = None, **changes: Any
    ) -> str:
        return attestation_text(json.loads(an_attestation(private or self.private, identity, candidate, **changes)))

    # -- what an evader does

    def post(self, path: str, body: object, prefix: str = "api/2.0", **kwargs: Any) -> httpx.Response:
        return httpx.post(f"{self.uri}/{prefix}/mlflow/{path}", json=body, timeout=60, follow_redirects=True, **kwargs)

    def sql(self, statement: str, **values: object) -> int:
        """A statement in MLflow's own database; how many rows it changed."""
        with self.unguarded.engine.begin() as connection:
            return connection.execute(sa.text(statement), values).rowcount

    def clear(self) -> None:
        """Removes every version, and every registered model that is not protected."""
        for name in self.models():
            if name in PROTECTED_MODELS:
                for table in ("registered_model_aliases", "model_version_tags", "model_versions"):
                    self.sql(f"delete from {table} where name = :name", name=name)
            else:
                self.unguarded.delete_registered_model(name)

    # -- what came of it

    def models(self) -> list[str]:
        """Every registered model, those included that MLflow's searches leave out."""
        with self.unguarded.engine.connect() as connection:
            return list(connection.execute(sa.text("select name from registered_models order by name")).scalars())

    def has_versions(self, name: str) -> bool:
        return bool(self.unguarded.get_registered_model(name).latest_versions)

    def sweep(self, times: int = 1) -> None:
        """So many sweeps, one each quarter of a minute by the dispatcher's clock."""
        for _ in range(times):
            self.clock.now += SWEEP_S + 1
            self.dispatcher.step()

    def leads(self, name: str) -> dict[str, str]:
        """Which version each alias and each stage of a registered model leads to, read past the guard."""
        model = self.unguarded.get_registered_model(name)
        stages = {
            f"stage {v.current_stage}": str(v.version) for v in model.latest_versions if v.current_stage != "None"
        }
        return {alias: str(number) for alias, number in model.aliases.items()} | stages

    def audited(self, identity: str) -> list[str]:
        """What the audit log tells about a version, oldest first."""
        with self.ledger._database.engine.connect() as connection:
            rows = connection.exec_driver_sql("select event, detail from audit order by seq").all()
        return [str(row.event) for row in rows if identity in json.loads(row.detail).values()]

    def drifted(self) -> float:
        return self.ledger.statistics(self.clock()).figures["drifted"]
