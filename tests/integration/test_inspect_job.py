"""The job that inspects a candidate: what it finds, what it waits for, and whom it tells what."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pytest
from builders import a_version
from checkpoint_folders import copied, nudge, reconfigured, rewritten
from fakes import FakeRegistry

from gate.adapters.database import ledger_url
from gate.adapters.policy_files import load_policies
from gate.adapters.signing import generate_key
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.errors import Unavailable
from gate.domain.evaluation import request_for
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.lineage import BASE_TAG
from gate.domain.overview import EvaluationRow
from gate.domain.verdict import Outcome
from gate.settings import Settings
from tasks import inspect, judge
from tasks.bases import profile_job, request_profiles, take_in
from tasks.running import JobContext, JobDone, JobWaits

STAGED = Path(__file__).parents[2] / "tasks" / "zoo" / "staged"


class FolderRegistry(FakeRegistry):
    """A registry whose versions' sources are folders of this machine."""

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        return Path(shutil.copytree(version.source, into))

    def model_tags(self, name: str) -> dict[str, str]:
        return {}

    def training_params(self, version: ModelVersion) -> dict[str, str]:
        return {}


@dataclass
class Bench:
    """A ledger with the staged base onboarded, and a registry of folders."""

    settings: Settings
    ledger: SqlLedger
    registry: FolderRegistry

    def __post_init__(self) -> None:
        self.policies = load_policies()
        self.base = take_in(self.settings, self.ledger, str(STAGED), suite="staged", name="staged base")
        request_profiles(self.ledger, self.base, self.policies)

    @property
    def profile(self) -> str:
        return profile_job(self.base, self.policies.policies[0]).key

    def fail_the_profile(self) -> None:
        self.ledger.fail(self.ledger.claim(self.profile, "w", 60, time.time()), time.time(), error="no memory")

    def ask(self, folder: Path, number: str, base: str) -> str:
        tags = {BASE_TAG: base}
        version = self.registry.add(a_version(version=number, source=str(folder), tags=tags))
        request = request_for(version, self.policies.policies[0], [])
        self.ledger.request_evaluation(request, time.time())
        return request.key

    def claimed(self, job_key: str) -> JobContext:
        return JobContext(self.ledger.claim(job_key, "w", 60, time.time()), self.ledger, self.settings)

    def walk(self, folder: Path, number: str = "1", base: str = "staged base") -> EvaluationRow:
        """Inspected and judged; nothing in between may be asked for."""
        key = self.ask(folder, number, base)
        for job in (inspect_key(key), judge_key(key)):
            context = self.claimed(job)
            done = inspect.run(context) if job == inspect_key(key) else judge.run(context)
            assert isinstance(done, JobDone)
            self.ledger.finish(context.claim, time.time(), result=done.result, then=done.then)
        return self.ledger.evaluation(key)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    migrate(ledger_url("", tmp_path))
    generate_key(tmp_path / "key.pem")
    settings = Settings(state_dir=tmp_path, signing_key_file=tmp_path / "key.pem")
    bench = Bench(settings, SqlLedger(ledger_url("", tmp_path)), FolderRegistry())
    monkeypatch.setattr(inspect, "build_registry", lambda _: bench.registry)
    yield bench
    bench.ledger.close()


def test_it_waits_while_the_profile_is_still_to_be_made(bench: Bench) -> None:
    context = bench.claimed(inspect_key(bench.ask(STAGED, "1", "staged base")))
    assert inspect.run(context) == JobWaits((profile_job(bench.base, bench.policies.policies[0]),))


def test_a_sound_candidate_of_an_unprofiled_base_ends_in_an_error_that_says_why(bench: Bench) -> None:
    bench.fail_the_profile()
    row = bench.walk(STAGED)
    assert row.outcome == Outcome.ERROR
    assert "no memory" in row.reason
    assert "basin-gate base add" in row.reason


def test_without_the_keyless_signature_that_was_asked_for_there_is_no_verdict(bench: Bench, tmp_path: Path) -> None:
    bench.fail_the_profile()
    key = bench.ask(STAGED, "1", "staged base")
    context = bench.claimed(inspect_key(key))
    done = inspect.run(context)
    assert isinstance(done, JobDone)
    bench.ledger.finish(context.claim, time.time(), result=done.result, then=done.then)
    context = bench.claimed(judge_key(key))
    context.settings = bench.settings.model_copy(
        update={"sigstore": "production", "sigstore_token_file": tmp_path / "no token"}
    )
    with pytest.raises(Unavailable, match="GATE_SIGSTORE_TOKEN_FILE"):
        judge.run(context)
    assert bench.ledger.judged(key) is None


def test_a_candidate_whose_base_no_gpu_worker_holds_waits_for_a_person_and_not_for_a_worker(bench: Bench) -> None:
    bench.base = of_70b(bench)
    bench.settings = bench.settings.model_copy(update={"gpu_memory_gb": "24,80"})
    row = bench.walk(STAGED)

    assert row.outcome == Outcome.NEEDS_REVIEW
    assert "841 GB by estimate, found 80 GB at most; add workers of that size" in row.reason
    assert bench.ledger.due("gpu-80", time.time()) == bench.ledger.due("gpu-24", time.time()) == []


def test_a_candidate_is_profiled_and_measured_on_the_smallest_device_that_holds_it(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"gpu_memory_gb": "80,24"})
    context = bench.claimed(inspect_key(bench.ask(STAGED, "1", "staged base")))
    waits = inspect.run(context)

    assert isinstance(waits, JobWaits)
    assert [each.queue for each in waits.needs] == ["gpu-24"]


def of_70b(bench: Bench) -> Base:
    """The staged base, said to have 70 billion parameters."""
    large = bench.base.checkpoint.model_copy(update={"parameters": 70_000_000_000})
    base = bench.base.model_copy(update={"checkpoint": large})
    bench.ledger.save_base(base, time.time())
    return base


def test_what_is_wrong_with_the_files_is_found_without_a_profile_too(bench: Bench, tmp_path: Path) -> None:
    bench.fail_the_profile()
    broken = copied(STAGED, tmp_path / "broken")
    row = bench.walk(rewritten(broken, lambda found: nudge(found, "model.norm.weight", nan)))
    assert row.outcome == Outcome.BLOCKED
    changed = reconfigured(copied(STAGED, tmp_path / "changed"), rms_norm_eps=0.5)
    assert bench.walk(changed, "2").outcome == Outcome.BLOCKED


def test_the_same_bytes_can_be_measured_once_the_profile_can_be_made(bench: Bench) -> None:
    bench.fail_the_profile()
    first = bench.walk(STAGED)
    request_profiles(bench.ledger, bench.base, bench.policies)
    context = bench.claimed(inspect_key(bench.ask(STAGED, "2", "staged base")))
    assert isinstance(inspect.run(context), JobWaits)
    assert bench.ledger.evidence(first.evidence_key).key == first.request.key


def test_each_version_of_the_same_bytes_is_told_which_base_it_named_itself(bench: Bench) -> None:
    reasons = [bench.walk(STAGED, number, base).reason for number, base in (("1", "nobody's"), ("2", "somebody's"))]
    assert ["nobody's" in reasons[0], "somebody's" in reasons[1]] == [True, True]


def test_a_pickle_is_told_before_what_follows_from_it_and_no_folder_of_the_cache_is_named(
    bench: Bench, tmp_path: Path
) -> None:
    folder = copied(STAGED, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    row = bench.walk(folder, base="nobody's")
    assert row.reason.startswith("pytorch_model.bin")
    (missing,) = [d for d in bench.ledger.evidence(row.evidence_key).defects if d.code == "artifacts_missing"]
    assert "none in the folder" in missing.message


def test_a_version_deleted_while_it_is_inspected_ends_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch_and_delete(version: ModelVersion, into: Path) -> Path:
        bench.registry.held.clear()
        return Path(shutil.copytree(version.source, into))

    monkeypatch.setattr(bench.registry, "fetch", fetch_and_delete)
    assert bench.walk(STAGED).outcome == Outcome.BLOCKED
