"""Every part is replaced under a stream of registrations: each version still ends with exactly one verdict, the right one."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from fine_tunes import FineTunes
from mlflow.exceptions import MlflowException
from whole_product import BASE_REFERENCE, PATIENCE_S, Product, Registered

from gate.adapters.ledger_runs import PUT_OFF, WAITS
from gate.adapters.ledger_tables import DONE, job_run
from gate.domain.jobs import judge_key, measure_key

EXPECTED = {"approved in the roll-out": "approved", "blocked in the roll-out": "blocked"}
RECIPES = dict(zip(EXPECTED, ("benign_replay", "adversarial"), strict=True))
SURGES = ("dispatcher", "cpu-worker", "gpu-worker")
"""Replaced as Kubernetes replaces them: the new one works before the old one is told to stop. The others have an
address of their own here, so they are away in between, which is worse."""
RESTARTS = ("api", *SURGES, "valkey", "mlflow")
STARTED = {"dispatcher": "dispatcher started", "cpu-worker": " ready.", "gpu-worker": " ready."}
OPEN_AT_ONCE = 2
AT_LEAST = 6


class Stream(threading.Thread):
    """Registers new fine-tunes, alternately harmless and harmful, each with bytes of its own, as fast as they are judged."""

    def __init__(self, product: Product, folders: Mapping[str, Path], room: Path) -> None:
        super().__init__(daemon=True)
        self.product, self.folders, self.room = product, folders, room
        self.done, self.made = threading.Event(), 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self.done.wait(0.05):
                if open_evaluations(self.product) < OPEN_AT_ONCE:
                    self.register(list(EXPECTED)[self.made % len(EXPECTED)])
        except Exception as error:
            self.failure = error

    def register(self, name: str) -> None:
        """Register one, again where MLflow was away just then."""
        folder = self.room / f"{self.made}"
        shutil.copytree(self.folders[name], folder)
        (folder / "NOTES.md").write_text(f"candidate {self.made}\n")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.product.register(name, folder, base=BASE_REFERENCE)
                break
            except MlflowException:
                if self.done.wait(0.5) or time.monotonic() > deadline:
                    raise
        self.made += 1


def open_evaluations(product: Product) -> int:
    """How many evaluations have not been written to MLflow."""
    return sum(not row.projected for row in product.ledger.evaluations(1000))


def logged(product: Product, name: str) -> int:
    """How often a service has said that it works."""
    log = product.stack.state / "logs" / f"{name}.log"
    return log.read_text(errors="replace").count(STARTED[name])


def replace(product: Product, name: str) -> None:
    """Replace one part: SIGTERM for the old one, a new one before it or after it."""
    stack = product.stack
    if name not in SURGES:
        stack.end([name], PATIENCE_S)
        product.restart(name)
        product.until(stack.service(name).ready, f"{name} to answer again")
        return
    before = logged(product, name)
    stack.processes["old"] = stack.processes.pop(name)
    product.restart(name)
    product.until(lambda: logged(product, name) > before, f"a second {name}")
    stack.end(["old"], PATIENCE_S)


@pytest.fixture(scope="module")
def folders(fine_tune: FineTunes) -> Mapping[str, Path]:
    """A harmless and a harmful fine-tune of the staged base."""
    return {name: fine_tune(recipe) for name, recipe in RECIPES.items()}


@pytest.fixture(scope="module")
def rolled(
    product: Product, folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, list[Registered]]:
    """All versions of the stream by registered model, after each part was replaced while something was measured."""
    product.until_profiled()
    stream = Stream(product, folders, tmp_path_factory.mktemp("stream"))
    stream.start()
    try:
        for name in RESTARTS:
            product.until(lambda: stream.failure or measuring(product), "something to be measured")
            replace(product, name)
        product.until(lambda: stream.failure or stream.made >= AT_LEAST, f"{AT_LEAST} versions")
    finally:
        stream.done.set()
        stream.join(PATIENCE_S)
    assert stream.failure is None, product.situation()
    found = {name: versions_of(product, name) for name in EXPECTED}
    assert sum(map(len, found.values())) >= stream.made >= AT_LEAST
    product.until_projected([version for versions in found.values() for version in versions])
    product.until_quiet()
    return found


def measuring(product: Product) -> bool:
    """Whether a worker is measuring a candidate now."""
    return any(job.state == "running" for job in product.measure_jobs())


def versions_of(product: Product, name: str) -> list[Registered]:
    """What MLflow knows: a registration whose answer was lost may stand there twice."""
    found = product.client.search_model_versions(f"name = '{name}'", max_results=1000)
    return [Registered(name, str(version.version)) for version in found]


@pytest.mark.parametrize("name", EXPECTED)
def test_each_version_registered_during_the_roll_out_has_exactly_one_verdict_and_the_right_one(
    product: Product, rolled: Mapping[str, list[Registered]], name: str
) -> None:
    for version in rolled[name]:
        [verdict] = product.verdicts_of(version)
        [run] = product.runs_of(version)
        tags = product.tags(version)
        assert verdict["outcome"] == EXPECTED[name], verdict["reason"]
        assert (tags["gate.verdict"], tags["gate.run_id"]) == (EXPECTED[name], run.info.run_id)
        assert (run.data.tags["gate.verdict"], run.info.status) == (EXPECTED[name], "FINISHED")


def test_every_job_was_done_once_and_what_was_interrupted_was_handed_back(
    product: Product, rolled: Mapping[str, list[Registered]]
) -> None:
    rows = [product.row(version) for versions in rolled.values() for version in versions]
    keys = {judge_key(row.request.key) for row in rows} | {measure_key(row.evidence_key) for row in rows}
    runs = [row for row in product.select(job_run) if row.job in keys]
    assert Counter(row.job for row in runs if row.outcome == DONE) == Counter(keys)
    assert {row.outcome for row in runs} <= {DONE, PUT_OFF, WAITS}
    assert [row.error for row in product.jobs() if row.key in keys and row.state != DONE] == []


def test_the_record_of_the_roll_out_is_whole(product: Product, rolled: Mapping[str, list[Registered]]) -> None:
    assert product.ledger.audit_break() is None
    judged = Counter(entry["evaluation"] for entry in product.audited("verdict"))
    wanted = [product.row(version).request.key for versions in rolled.values() for version in versions]
    assert [judged[key] for key in wanted] == [1] * len(wanted)
