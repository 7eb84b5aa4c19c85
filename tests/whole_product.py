"""The whole product as its users run it, on loopback: MLflow with the guard, the API, the dispatcher, the workers."""

import json
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from trace_collector import Collector

from gate.adapters.ledger_tables import ENDED, audit, delivery, evidence, job, verdict
from gate.adapters.policy_files import DEFAULT
from gate.adapters.sql_ledger import SqlLedger
from gate.bootstrap import build_ledger, build_policies, migrate_ledger
from gate.domain.overview import EvaluationRow
from gate.embedded import EmbeddedStack
from gate.settings import Settings
from tasks.bases import request_profiles, take_in

BASE = "staged base"
BASE_REFERENCE = f"models:/{BASE}/1"
STAGED = Path(__file__).parents[1] / "tasks" / "zoo" / "staged"
LEASE_S = 60.0
"""Longer than a worker is ever held up by the machine; `end_lease` ends that of one that was killed."""
PATIENCE_S = 540.0

# The default policy with as little measured as its deciding rules allow.
SMALL_PLAN = {
    "noise_scales": [0.005, 0.02],
    "noise_draws": 2,
    "noise_items": 16,
    "line_points": [2.0],
    "line_items": 16,
    "random_draws": 2,
    "ascent_steps": 2,
    "ascent_seeds": 2,
    "ascent_items": 4,
}


def small_policy(path: Path) -> Path:
    """The shipped default policy, measuring little and granting waivers."""
    document = yaml.safe_load(DEFAULT.read_text(encoding="utf-8")) | {"plan": SMALL_PLAN, "waivers": {"max_days": 14}}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Registered:
    """One registered version."""

    name: str
    number: str


class Product:
    """A running stack that sends its traces to a collector, with the staged base onboarded, and what a user does with it."""

    def __init__(self, state: Path) -> None:
        self.collector = Collector()
        self.policy = small_policy(state / "policy.yaml")
        given = {"GATE_RECONCILE_EVERY_S": "6", "GATE_THREADS": "1", "GATE_LEASE_S": str(LEASE_S)}
        given |= {"GATE_TRACES_ENDPOINT": self.collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        given |= {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=gate"}
        self.stack = EmbeddedStack(state / "gate", policies=self.policy, settings=given)
        self.stack.start()
        self.client = MlflowClient(self.stack.mlflow_uri, self.stack.mlflow_uri)
        self.experiment = self.client.create_experiment("fine-tuning")
        self.settings = Settings(
            state_dir=self.stack.state,
            mlflow_tracking_uri=self.stack.mlflow_uri,
            policies=self.policy,
        )
        migrate_ledger(self.settings)
        self.ledger: SqlLedger = build_ledger(self.settings)

    def onboard(self) -> None:
        """Register the staged base in MLflow and onboard it."""
        self.register(BASE, STAGED)
        base = take_in(self.settings, self.ledger, BASE_REFERENCE, suite="staged", name=BASE)
        request_profiles(self.ledger, base, build_policies(self.settings))

    def upload(self, folder: Path) -> str:
        """Log a folder's files as a run's artifacts; the run's id."""
        run = self.client.create_run(self.experiment)
        self.client.log_artifacts(run.info.run_id, str(folder), "model")
        self.client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def register(self, name: str, folder: Path, *, base: str | None = None) -> Registered:
        """Register a folder as a new version through MLflow's own client, naming its base in a tag where given."""
        run_id = self.upload(folder)
        return self.register_source(name, f"runs:/{run_id}/model", base=base, run_id=run_id)

    def register_source(
        self, name: str, source: str, *, base: str | None = None, run_id: str | None = None
    ) -> Registered:
        """Register what lies at a source, if anything does."""
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {"gate.base": base} if base else {}
        return Registered(name, str(self.client.create_model_version(name, source, run_id, tags=tags).version))

    def row(self, version: Registered) -> EvaluationRow | None:
        """The version's evaluation."""
        rows = self.ledger.evaluations(100, name=version.name)
        return next((row for row in rows if row.request.version.version == version.number), None)

    def until(self, reached: Callable[[], object], what: str) -> None:
        """Wait for something to become true; on failure say what was going on."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if time.monotonic() > deadline or self.stack.dead():
                raise AssertionError(f"expected {what}; {self.situation()}")
            time.sleep(0.05)

    def until_profiled(self) -> None:
        """Wait until the base's profile has been made."""
        self.until(lambda: [r for r in self.jobs() if r.kind == "profile" and r.state == "done"], "the profile")

    def until_projected(self, versions: Collection[Registered]) -> None:
        """Wait until every version's verdict stands in MLflow."""

        def all_projected() -> bool:
            rows = [self.row(version) for version in versions]
            return all(row is not None and row.projected for row in rows)

        self.until(all_projected, f"a verdict on each of {len(versions)} versions")

    def situation(self) -> str:
        """The evaluations, the jobs that have not ended, and the ends of the logs."""
        rows = [
            f"{r.request.version.name}/{r.request.version.version}: {r.state} {r.stage} {r.outcome} {r.reason}"
            for r in self.ledger.evaluations(100)
        ]
        jobs = [f"{r.key[:40]} {r.state} {r.attempts} {r.error}" for r in self.jobs() if r.state != "done"]
        logs = [f"--- {s.name}\n{self.stack.log_tail(s.name, 12)}" for s in self.stack.services()]
        return "\n".join([f"dead: {self.stack.dead()}", *rows, *jobs, *logs])

    def select(self, table: sa.Table) -> list[Any]:
        """Every row of one of the ledger's tables."""
        engine = sa.create_engine(f"sqlite:///{self.stack.state}/ledger.db")
        try:
            with engine.connect() as connection:
                return list(connection.execute(sa.select(table)))
        finally:
            engine.dispose()

    def verdicts_of(self, version: Registered) -> list[Mapping[str, Any]]:
        """Every verdict kept on the version, as documents."""
        identity = self.row(version).request.version.identity
        bodies = (json.loads(row.body) for row in self.select(verdict))
        return [body for body in bodies if body["subject"] == identity]

    def runs_of(self, version: Registered) -> list[Any]:
        """Every MLflow run that shows an evaluation of the version."""
        experiment = self.client.get_experiment_by_name("basin-gate")
        identity = self.row(version).request.version.identity
        runs = self.client.search_runs([experiment.experiment_id], max_results=1000)
        return [run for run in runs if run.data.tags.get("gate.subject") == identity]

    def tags(self, version: Registered) -> Mapping[str, str]:
        """The version's tags in MLflow now."""
        return dict(self.client.get_model_version(version.name, version.number).tags)

    def jobs(self) -> list[Any]:
        """Every job of the ledger."""
        return self.select(job)

    def until_quiet(self) -> None:
        """Wait until every job has ended."""
        self.until(lambda: all(row.state in ENDED for row in self.jobs()), "an end of all jobs")

    def measure_jobs(self) -> list[Any]:
        """The jobs that measure candidates."""
        return [row for row in self.jobs() if row.kind == "measure"]

    def end_lease(self, key: str) -> None:
        """Have the lease of whoever holds a job end now."""
        ended = sa.update(job).where(job.c.key == key, job.c.state == "running").values(lease_until=0.0)
        assert self.ledger._database.write(lambda c: c.execute(ended).rowcount) == 1

    def restart(self, name: str) -> None:
        """Start a service again that was ended or killed."""
        self.stack.launch(self.stack.service(name))

    def deliveries(self) -> list[str]:
        """The ids of the deliveries taken in."""
        return [row.id for row in self.select(delivery)]

    def audited(self, event: str) -> list[Mapping[str, Any]]:
        """The details of each audit entry of that name."""
        return [json.loads(row.detail) for row in self.select(audit) if row.event == event]

    def evidence_keys(self) -> set[str]:
        """Keys of all the evidence there is."""
        return {row.key for row in self.select(evidence)}

    def get(self, path: str) -> Any:
        """What the gate's API answers."""
        with urllib.request.urlopen(self.stack.api_url + path, timeout=120) as reply:
            return json.load(reply)

    def close(self) -> None:
        """End it and all its processes; once more does nothing."""
        self.ledger.close()
        self.stack.stop()
        self.collector.stop()
