"""One trace from MLflow's delivery to the verdict in MLflow, through every process, as a real collector gets it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from trace_collector import Sent
from whole_product import BASE_REFERENCE, STAGED, Product, Registered

JOBS = {"inspect", "measure", "judge", "project"}
PROCESSES = {"basin-gate-api", "basin-gate-dispatcher", "basin-gate-worker"}


@dataclass
class Traced:
    """A version that the product has judged, and what a collector was sent of that."""

    product: Product
    version: Registered
    trace: str

    @property
    def all(self) -> Sequence[Sent]:
        return self.product.collector.of_trace(self.trace)

    def spans(self, name: str) -> Sequence[Sent]:
        return [span for span in self.all if span.name == name]

    def complete(self) -> bool:
        """Whether each job's span has come, which its process sends after those of its stages, and every span's parent."""
        known = {span.id for span in self.all}
        jobs = {span.name for span in self.all if span.attributes.get("gate.outcome", "done") == "done"}
        return jobs >= JOBS and {span.parent for span in self.all} - known == {""}


@pytest.fixture(scope="module")
def traced(product: Product) -> Traced:
    version = product.register("traced assistant", STAGED, base=BASE_REFERENCE)
    product.until_projected([version])
    row = product.row(version)
    assert row is not None
    assert row.trace_id is not None
    found = Traced(product, version, row.trace_id)
    product.until(found.complete, "a whole trace")
    return found


def test_one_trace_goes_through_every_process_to_the_verdict(traced: Traced) -> None:
    assert {span.process for span in traced.all} == PROCESSES
    assert {"doorbell", "inspect", "measure", "judge", "project", "mlflow"} <= {span.name for span in traced.all}
    assert [span.attributes["gate.outcome"] for span in traced.spans("judge")] == ["done"]
    # That there is no such alias yet is an answer of MLflow.
    assert not [span for span in traced.all if span.failed and span.name != "mlflow"]


def test_a_trace_begins_with_what_told_of_the_version(traced: Traced) -> None:
    (first,) = [span for span in traced.all if not span.parent]
    # Whichever was quicker: MLflow's delivery or the reconciler.
    assert first.name in {"delivery", "reconcile"}


def test_a_jobs_stages_are_its_children_and_calls_to_mlflow_theirs(traced: Traced) -> None:
    (inspect,) = [span for span in traced.spans("inspect") if span.attributes["gate.outcome"] == "done"]
    (fetching,) = [span for span in traced.spans("fetching") if span.parent == inspect.id]
    assert fetching.attributes["gate.stage"] == "fetching"
    assert [span for span in traced.spans("mlflow") if span.parent == fetching.id]
    (measure,) = traced.spans("measure")
    stages = {span.name for span in traced.all if span.parent == measure.id}
    assert {"loading", "reading the base's answers"} <= stages


def test_the_run_in_mlflow_names_the_trace(traced: Traced) -> None:
    (run,) = traced.product.runs_of(traced.version)
    assert run.data.tags["gate.trace"] == traced.trace


def test_every_log_line_of_the_evaluation_names_its_trace(traced: Traced) -> None:
    row = traced.product.row(traced.version)
    assert row is not None
    for name in ("dispatcher", "cpu-worker", "gpu-worker"):
        text = Path(traced.product.stack.state / "logs" / f"{name}.log").read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        about = [line for line in lines if line.get("evaluation") == row.request.key]
        assert about, name
        assert {line["trace_id"] for line in about} == {traced.trace}, name


def test_the_sdks_own_variables_hold(traced: Traced) -> None:
    assert traced.product.collector.headers["x-tenant"] == "gate"
