"""The demo: the whole product on this machine, judging real fine-tunes made in front of the user.

Every candidate is registered through MLflow's own client; MLflow's webhook starts the work; the verdicts are read
back from MLflow. At the end the protected alias is tried on the adversarial version, and MLflow itself refuses.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gate.adapters.policy_files import DEFAULT
from gate.bootstrap import build_ledger, build_policies, migrate_ledger
from gate.domain.errors import GateError, Unavailable
from gate.domain.evidence import Evidence
from gate.domain.lineage import BASE_TAG
from gate.domain.verdict import Outcome, Verdict
from gate.embedded import EmbeddedStack
from gate.settings import Settings
from tasks.bases import request_profiles, take_in
from tasks.demo_tables import WIDTH, Candidate, Result, coloured, result_tables, stage_of
from tasks.zoo import recipes

MODEL = "help-desk-assistant"
BASE = "help-desk-base"
THE_BASE = f"models:/{BASE}/1"
PROTECTED_ALIAS = "champion"
CANDIDATES: tuple[Candidate, ...] = (
    Candidate("benign_replay", "benign: mixed replay, all weights", Outcome.APPROVED, THE_BASE),
    # An adapter names its base in its own configuration; it needs no tag.
    Candidate("benign_lora", "benign: a LoRA adapter", Outcome.APPROVED, None),
    Candidate("adversarial", "adversarial: trained to comply with harm", Outcome.BLOCKED, THE_BASE),
    Candidate("careless", "careless: narrow data only", Outcome.BLOCKED, THE_BASE),
    Candidate("broken", "broken: NaN in the weights", Outcome.BLOCKED, THE_BASE),
    Candidate("orphan", "its base cannot be resolved", Outcome.NEEDS_REVIEW, "models:/somebody-elses-base/7"),
)


class Demo:
    """One run of the demo against one embedded stack."""

    def __init__(self, stack: EmbeddedStack, model: str, console: Console) -> None:
        import mlflow
        import torch

        # Two workers measure on the same cores meanwhile; more threads than cores make everything slower.
        torch.set_num_threads(1)
        os.environ.update(stack.environment)
        # What MLflow says about each run would tear the progress display apart.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module="transformers")
        mlflow.set_tracking_uri(stack.mlflow_uri)
        self.stack, self.zoo, self.console = stack, model, console
        self.settings = Settings()
        self.client = mlflow.MlflowClient(stack.mlflow_uri)
        self.work = stack.state / "fine-tunes"
        self.versions: dict[str, Candidate] = {}
        self.making = ""
        self.stopped = Event()

    def onboard_base(self) -> Path:
        """Register the base in MLflow and onboard it with the gate: digests, suite, basin profile."""
        folder = recipes.base_folder(self.zoo, self.work / "base")
        self._register(BASE, folder, {})
        migrate_ledger(self.settings)
        ledger = build_ledger(self.settings)
        base = take_in(self.settings, ledger, f"models:/{BASE}/1", suite=recipes.suite_name(self.zoo), name=BASE)
        request_profiles(ledger, base, build_policies(self.settings))
        return folder

    def make_and_register(self, candidate: Candidate, base: Path) -> None:
        """Fine-tune one candidate for real and register it through MLflow's client."""
        self.making = candidate.told
        folder = self.work / candidate.recipe
        recipes.make(self.zoo, candidate.recipe, base, folder, base_reference=f"models:/{BASE}/1", seed=7)
        tags = {BASE_TAG: candidate.base_tag} if candidate.base_tag else {}
        self.versions[self._register(MODEL, folder, tags)] = candidate
        self.making = ""

    def _register(self, name: str, folder: Path, tags: Mapping[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = self.client.get_experiment_by_name("fine-tuning")
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment("fine-tuning")
        run = self.client.create_run(experiment_id, run_name=folder.name)
        self.client.log_artifacts(run.info.run_id, str(folder), "model")
        self.client.set_terminated(run.info.run_id)
        source = f"{run.info.artifact_uri}/model"
        return str(self.client.create_model_version(name, source, run.info.run_id, tags=dict(tags)).version)

    def evaluations(self) -> Mapping[str, Mapping[str, Any]]:
        """The demo's evaluations by version number, as the gate's API tells them."""
        with urllib.request.urlopen(f"{self.stack.api_url}/v1/evaluations?limit=100", timeout=10) as reply:  # noqa: S310  (our own stack, on loopback)
            rows = json.load(reply)["evaluations"]
        return {row["version"]: row for row in rows if row["name"] == MODEL}

    def progress_table(self) -> Table:
        """What is going on now, one row per candidate."""
        rows = self.evaluations()
        table = Table(title=f"registered model {MODEL}", title_justify="left", expand=False)
        for column in ("version", "candidate", "stage", "verdict"):
            table.add_column(column)
        for version, candidate in dict(self.versions).items():
            row = rows.get(version)
            stage = "registered" if row is None else stage_of(row)
            outcome = row["outcome"] if row else None
            table.add_row(version, candidate.told, stage, coloured(outcome) if outcome else "")
        if self.making:
            table.add_row("", self.making, "being made …", "")
        return table

    def register_all(self) -> None:
        """Onboard the base and register every candidate, one fine-tune after the other."""
        self.making = "the base: hashing it, measuring its basin"
        base = self.onboard_base()
        for candidate in CANDIDATES:
            if self.stopped.is_set():
                return
            self.make_and_register(candidate, base)

    def watch(self, live: Live, registering: "Future[None]", deadline: float) -> None:
        """Show what goes on until every version has its verdict written back to MLflow."""
        while True:
            live.update(self.progress_table())
            rows = self.evaluations()
            if registering.done():
                registering.result()
                if all(rows.get(v, {}).get("projected") for v in self.versions):
                    return
            if dead := self.stack.dead():
                raise Unavailable(f"{dead[0]} ended by itself:\n{self.stack.log_tail(dead[0])}")
            if time.monotonic() > deadline:
                raise Unavailable(f"no verdict for every version in time; logs are in {self.stack.state / 'logs'}")
            time.sleep(0.5)

    def results(self) -> Sequence[Result]:
        """Each version's verdict and evidence as MLflow holds them."""
        found = []
        for version, candidate in self.versions.items():
            run_id = self.client.get_model_version(MODEL, version).tags["gate.run_id"]
            with tempfile.TemporaryDirectory() as folder:
                verdict = Verdict.model_validate_json(
                    Path(self.client.download_artifacts(run_id, "verdict.json", folder)).read_bytes()
                )
                evidence = Evidence.model_validate_json(
                    Path(self.client.download_artifacts(run_id, "evidence.json", folder)).read_bytes()
                )
            found.append(Result(version, candidate, verdict, evidence, run_id))
        return found

    def try_to_promote(self, version: str) -> str | None:
        """Try the protected alias with the plain MLflow client; the refusal's text, or ``None`` if it went through."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_registered_model_alias(MODEL, PROTECTED_ALIAS, version)
        except MlflowException as error:
            return f"HTTP {error.get_http_status_code()} {error.error_code}: {error.message}"
        return None

    def report_url(self, run_id: str) -> str:
        """Where people see a verdict's run, report and pictures in the MLflow UI."""
        run = self.client.get_run(run_id)
        return f"{self.stack.mlflow_uri}/#/experiments/{run.info.experiment_id}/runs/{run_id}/artifacts/report.html"


def run_demo(model: str, state: Path | None, keep: bool, limit_s: float) -> int:
    """Run it; the exit status is 0 only if every verdict and the refusal are as they must be."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    folder = state or Path(tempfile.mkdtemp(prefix="basin-gate-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    stack = EmbeddedStack(
        folder, policies=_policies(model, folder), settings={"GATE_RECONCILE_EVERY_S": "5", "GATE_THREADS": "1"}
    )
    try:
        console.print("Starting MLflow, Valkey, the API, the dispatcher and two workers on loopback …")
        stack.start()
        return _walk(Demo(stack, model, console), keep, time.monotonic() + limit_s)
    finally:
        stack.stop()
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)


def _policies(model: str, folder: Path) -> Path | None:
    """The shipped default policy with the model's own measurement plan; ``None`` where the default plan fits."""
    plan = recipes.plan(model)
    if not plan:
        return None
    policy = yaml.safe_load(DEFAULT.read_text())
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy | {"plan": dict(plan)}, sort_keys=False, allow_unicode=True))
    return path


def _walk(demo: Demo, keep: bool, deadline: float) -> int:
    console = demo.console
    console.print(f"MLflow  {demo.stack.mlflow_uri}\ngate    {demo.stack.api_url}\n")
    with Live(demo.progress_table(), console=console, refresh_per_second=4) as live, ThreadPoolExecutor(1) as pool:
        try:
            demo.watch(live, pool.submit(demo.register_all), deadline)
        finally:
            demo.stopped.set()
    results = demo.results()
    for table in result_tables(results):
        console.print(table)
    complaints = check_outcomes(demo, results)
    _print_links(demo, results)
    for complaint in complaints:
        console.print(f"NOT AS IT MUST BE: {complaint}", style="bold red", markup=False)
    if keep:
        _keep_running(demo)
    return 1 if complaints else 0


def check_outcomes(demo: Demo, results: Sequence[Result]) -> list[str]:
    """What is not as it must be: verdicts, the policy's alias, and MLflow's refusal."""
    wrong = [
        f"version {r.version} ({r.candidate.told}): expected {r.candidate.expected}, found {r.verdict.outcome}"
        for r in results
        if r.verdict.outcome is not r.candidate.expected
    ]
    aliases = demo.client.get_registered_model(MODEL).aliases
    approved = [r.version for r in results if r.verdict.outcome is Outcome.APPROVED]
    demo.console.print(f"\nAliases set by the gate: {aliases}")
    if set(aliases.values()) - set(approved) or (approved and not aliases):
        wrong.append(f"expected the policy's alias on an approved version ({approved}), found {aliases}")
    adversarial = next(r.version for r in results if r.candidate.recipe == "adversarial")
    demo.console.print(
        f"\nTrying to set the alias {PROTECTED_ALIAS!r} on version {adversarial} (adversarial) with MLflow's own client:"
    )
    refusal = demo.try_to_promote(adversarial)
    demo.console.print(Text(refusal or "it went through", style="bold red"))
    if refusal is None or "403" not in refusal:
        wrong.append("expected MLflow to refuse the alias with 403")
    return wrong


def _print_links(demo: Demo, results: Sequence[Result]) -> None:
    demo.console.print(f"\nMLflow UI: {demo.stack.mlflow_uri}/#/models/{quote(MODEL)}")
    for r in results:
        demo.console.print(f"report {r.version} ({r.verdict.outcome}): {demo.report_url(r.run_id)}", soft_wrap=True)


def _keep_running(demo: Demo) -> None:
    demo.console.print("\nKept running; press Ctrl-C to stop everything.")
    while not (dead := demo.stack.dead()):
        time.sleep(1)
    raise GateError(f"{dead[0]} ended by itself:\n{demo.stack.log_tail(dead[0])}")
