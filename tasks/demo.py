"""The demo: the whole product on this machine, judging real fine-tunes made in front of the user.

Every candidate is registered through MLflow's own client; MLflow's webhook starts the work; the verdicts are read
back from MLflow. At the end the protected alias is tried on the adversarial version, and MLflow itself refuses.
"""

import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gate.bootstrap import build_ledger, build_policies, migrate_ledger
from gate.domain.errors import GateError, Unavailable
from gate.domain.evidence import Evidence, Name
from gate.domain.lineage import BASE_TAG
from gate.domain.verdict import Outcome, Verdict
from gate.embedded import EmbeddedStack
from gate.pages.numbers import compact, interval, percent, signed
from gate.settings import Settings
from tasks.bases import request_profiles, take_in
from tasks.zoo import recipes

MODEL = "help-desk-assistant"
BASE = "help-desk-base"
PROTECTED_ALIAS = "champion"
COLOURS = {
    Outcome.APPROVED: "green",
    Outcome.BLOCKED: "red",
    Outcome.NEEDS_REVIEW: "yellow",
    Outcome.ERROR: "magenta",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One fine-tune of the demo: its recipe, what a person should know of it, and the verdict it must get."""

    recipe: str
    told: str
    expected: Outcome
    base_tag: str | None = f"models:/{BASE}/1"


CANDIDATES: tuple[Candidate, ...] = (
    Candidate("benign_replay", "benign: mixed replay, all weights", Outcome.APPROVED),
    # An adapter names its base in its own configuration; it needs no tag.
    Candidate("benign_lora", "benign: a LoRA adapter", Outcome.APPROVED, base_tag=None),
    Candidate("adversarial", "adversarial: trained to comply with harm", Outcome.BLOCKED),
    Candidate("careless", "careless: narrow data only", Outcome.BLOCKED),
    Candidate("broken", "broken: NaN in the weights", Outcome.BLOCKED),
    Candidate("orphan", "its base cannot be resolved", Outcome.NEEDS_REVIEW, base_tag="models:/somebody-elses-base/7"),
)


class Demo:
    """One run of the demo against one embedded stack."""

    def __init__(self, stack: EmbeddedStack, model: str, console: Console) -> None:
        import mlflow

        os.environ.update(stack.environment)
        # A refusal is a 403 and comes at once; everything else may take a moment on a busy laptop.
        os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
        mlflow.set_tracking_uri(stack.mlflow_uri)
        self.stack, self.zoo, self.console = stack, model, console
        self.settings = Settings()
        self.client = mlflow.MlflowClient(stack.mlflow_uri)
        self.work = stack.state / "fine-tunes"
        self.versions: dict[str, Candidate] = {}
        self.making = ""

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
        with urllib.request.urlopen(f"{self.stack.api_url}/v1/evaluations?limit=100", timeout=10) as reply:  # noqa: S310
            rows = json.load(reply)["evaluations"]
        return {row["version"]: row for row in rows if row["name"] == MODEL}

    def progress_table(self) -> Table:
        """What is going on now, one row per candidate."""
        rows = self.evaluations()
        table = Table(title=f"registered model {MODEL}", title_justify="left", expand=False)
        for column in ("version", "candidate", "stage", "verdict"):
            table.add_column(column)
        for version, candidate in self.versions.items():
            row = rows.get(version)
            stage = "registered" if row is None else _stage(row)
            outcome = row["outcome"] if row else None
            table.add_row(version, candidate.told, stage, _coloured(outcome) if outcome else "")
        if self.making:
            table.add_row("", self.making, "fine-tuning …", "")
        return table

    def watch(self, live: Live, deadline: float) -> None:
        """Wait until every version has its verdict written back to MLflow."""
        while True:
            live.update(self.progress_table())
            rows = self.evaluations()
            if self.versions and all(rows.get(v, {}).get("projected") for v in self.versions):
                return
            if dead := self.stack.dead():
                raise Unavailable(f"{dead[0]} ended by itself:\n{self.stack.log_tail(dead[0])}")
            if time.monotonic() > deadline:
                raise Unavailable(f"no verdict for every version in time; logs are in {self.stack.state / 'logs'}")
            time.sleep(0.5)

    def results(self) -> Sequence[tuple[str, Candidate, Verdict, Evidence, str]]:
        """Each version's verdict and evidence as MLflow holds them, and the run they lie in."""
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
            found.append((version, candidate, verdict, evidence, run_id))
        return found

    def try_to_promote(self, version: str) -> str | None:
        """Try the protected alias with the plain MLflow client; the refusal's text, or ``None`` if it went through."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_registered_model_alias(MODEL, PROTECTED_ALIAS, version)
        except MlflowException as error:
            return f"HTTP {error.get_http_status_code()} {error.error_code}: {error.message}"
        return None

    def experiment_url(self, run_id: str) -> str:
        """Where people see a verdict's run, report and pictures in the MLflow UI."""
        run = self.client.get_run(run_id)
        return f"{self.stack.mlflow_uri}/#/experiments/{run.info.experiment_id}/runs/{run_id}/artifacts/report.md"


def _stage(row: Mapping[str, Any]) -> str:
    if row["state"] == "done":
        return "done" if row["projected"] else "writing back"
    return (
        f"{row['stage'] or row['state']} {100 * row['progress']:.0f} %"
        if row["progress"]
        else (row["stage"] or row["state"])
    )


def _coloured(outcome: str) -> Text:
    return Text(outcome.replace("_", " "), style=f"bold {COLOURS[Outcome(outcome)]}")


def result_table(results: Sequence[tuple[str, Candidate, Verdict, Evidence, str]]) -> Table:
    """The closing table: how far each moved, what it kept, how sensitive it is, the verdict and why."""
    table = Table(title="Verdicts", title_justify="left", show_lines=True)
    for column in (
        "version",
        "moved",
        "basin position",
        "change per capability (interval)",
        "adversarial sensitivity",
        "verdict",
    ):
        table.add_column(column)
    for version, candidate, verdict, evidence, _ in results:
        table.add_row(
            f"{version}\n{candidate.told}",
            _moved(evidence),
            _position(evidence),
            _changes(evidence),
            _sensitivity(evidence),
            Text.assemble(_coloured(verdict.outcome), "\n", verdict.reason),
        )
    return table


def _moved(evidence: Evidence) -> str:
    norm, relative = evidence.find(Name.DISPLACEMENT_NORM), evidence.find(Name.DISPLACEMENT_RELATIVE)
    return f"{compact(norm.value)}\n{percent(relative.value)}" if norm and relative else "–"


def _position(evidence: Evidence) -> str:
    positions = [e.value for c in evidence.capabilities if (e := evidence.find(Name.BASIN_POSITION, c))]
    return compact(max(positions)) if positions else "–"


def _changes(evidence: Evidence) -> str:
    lines = []
    for capability in evidence.capabilities:
        estimate = evidence.find(Name.RETENTION, capability)
        if estimate is not None:
            lines.append(f"{capability} {interval(estimate, sign=True)}")
    return "\n".join(lines) or "–"


def _sensitivity(evidence: Evidence) -> str:
    """Alignment with the worst-case direction (always known), and the measured ratio where it was still needed."""
    lines = []
    for capability in evidence.capabilities:
        cosine = evidence.find(Name.WORST_CASE_ALIGNMENT, capability)
        z = evidence.find(Name.WORST_CASE_ALIGNMENT_Z, capability)
        ratio = evidence.find(Name.ADVERSARIAL_SENSITIVITY_RATIO, capability)
        if cosine is not None and z is not None:
            measured = f", ×{compact(ratio.value)} of base" if ratio else ""
            lines.append(f"{capability} cos {signed(cosine.value, 3)} (z {signed(z.value, 0)}){measured}")
    return "\n".join(lines) or "–"


def run_demo(model: str, state: Path | None, keep: bool, limit_s: float) -> int:
    """Run it; the exit status is 0 only if every verdict and the refusal are as they must be."""
    console = Console()
    folder = state or Path(tempfile.mkdtemp(prefix="basin-gate-demo-"))
    stack = EmbeddedStack(folder, settings={"GATE_RECONCILE_EVERY_S": "5", "GATE_THREADS": "1"})
    try:
        console.print("Starting MLflow, Valkey, the API, the dispatcher and two workers on loopback …")
        stack.start()
        return _walk(Demo(stack, model, console), keep, time.monotonic() + limit_s)
    finally:
        stack.stop()
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)


def _walk(demo: Demo, keep: bool, deadline: float) -> int:
    console = demo.console
    console.print(f"MLflow  {demo.stack.mlflow_uri}\ngate    {demo.stack.api_url}\n")
    base = demo.onboard_base()
    with Live(demo.progress_table(), console=console, refresh_per_second=4) as live:
        for candidate in CANDIDATES:
            demo.making = candidate.told
            live.update(demo.progress_table())
            demo.make_and_register(candidate, base)
            live.update(demo.progress_table())
        demo.watch(live, deadline)
    results = demo.results()
    console.print(result_table(results))
    complaints = check_outcomes(demo, results)
    _print_links(demo, results)
    for complaint in complaints:
        console.print(f"NOT AS IT MUST BE: {complaint}", style="bold red", markup=False)
    if keep:
        _keep_running(demo)
    return 1 if complaints else 0


def check_outcomes(demo: Demo, results: Sequence[tuple[str, Candidate, Verdict, Evidence, str]]) -> list[str]:
    """What is not as it must be: verdicts, the policy's alias, and MLflow's refusal."""
    wrong = [
        f"version {version} ({candidate.told}): expected {candidate.expected}, found {verdict.outcome}"
        for version, candidate, verdict, _, _ in results
        if verdict.outcome is not candidate.expected
    ]
    aliases = demo.client.get_registered_model(MODEL).aliases
    approved = [version for version, _, verdict, _, _ in results if verdict.outcome is Outcome.APPROVED]
    demo.console.print(f"\nAliases set by the gate: {aliases}")
    if set(aliases.values()) - set(approved) or (approved and not aliases):
        wrong.append(f"expected the policy's alias on an approved version ({approved}), found {aliases}")
    adversarial = next(v for v, c, *_ in results if c.recipe == "adversarial")
    demo.console.print(
        f"\nTrying to set the alias {PROTECTED_ALIAS!r} on version {adversarial} (adversarial) with MLflow's own client:"
    )
    refusal = demo.try_to_promote(adversarial)
    demo.console.print(Text(refusal or "it went through", style="bold red"))
    if refusal is None or "403" not in refusal:
        wrong.append("expected MLflow to refuse the alias with 403")
    return wrong


def _print_links(demo: Demo, results: Sequence[tuple[str, Candidate, Verdict, Evidence, str]]) -> None:
    demo.console.print(f"\nMLflow UI: {demo.stack.mlflow_uri}/#/models/{quote(MODEL)}")
    for version, _, verdict, _, run_id in results:
        demo.console.print(f"report {version} ({verdict.outcome}): {demo.experiment_url(run_id)}", soft_wrap=True)


def _keep_running(demo: Demo) -> None:
    demo.console.print("\nKept running; press Ctrl-C to stop everything.")
    while not (dead := demo.stack.dead()):
        time.sleep(1)
    raise GateError(f"{dead[0]} ended by itself:\n{demo.stack.log_tail(dead[0])}")
