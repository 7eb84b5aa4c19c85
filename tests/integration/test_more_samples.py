"""A reviewer asks for more samples of a real fine-tune: the comparison goes on, and the version is judged again."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from builders import a_version
from fakes import FakeRegistry
from fine_tunes import BASE, FineTunes

from gate.adapters.database import ledger_url
from gate.adapters.policy_files import load_policies
from gate.adapters.signing import generate_key
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import request_for
from gate.domain.evidence import Evidence, Name
from gate.domain.jobs import CPU_QUEUE, GPU_QUEUE, extend_key
from gate.domain.lineage import BASE_TAG
from gate.domain.verdict import Outcome, Review, ReviewDecision, Verdict
from gate.settings import Settings
from tasks import extend, inspect
from tasks.bases import take_in
from tasks.running import JobContext, run_job
from tasks.suites import SHIPPED

ITEMS = 48
POLICY = """
name: small
rules:
  - {name: kept, measurement: retention, capability: "*", at_least: margin, reason: keep it}
plan:
  {noise_scales: [0.005], noise_draws: 2, noise_items: 4, line_points: [2.0], line_items: 4, ascent_steps: 1, ascent_seeds: 2,
   ascent_items: 2, gradient_items: 2, random_draws: 2, rollout_items: 4, loss_items: 4, direction_steps: 1, batch_items: 8,
   retention_items: 8}
"""
SUITE = "name: small\ncapabilities:\n  - {name: math, scorer: exact, items: math.jsonl, margin: 0.15}\n"


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
    """A ledger with the staged base onboarded, a registry of folders, and a worker that does whatever is due."""

    settings: Settings
    ledger: SqlLedger
    registry: FolderRegistry = field(default_factory=FolderRegistry)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def register(self, folder: Path) -> str:
        """A new version, judged; the key of its evaluation."""
        number = str(next(self.numbers))
        tags = {BASE_TAG: "staged base"}
        version = self.registry.add(a_version(version=number, source=str(folder), tags=tags))
        request = request_for(version, load_policies(self.settings.policies).policies[0], [])
        assert request is not None
        self.ledger.request_evaluation(request, time.time())
        self.work()
        return request.key

    def work(self) -> None:
        """Does every job that is due, as a worker does when a doorbell rings."""
        while due := [key for queue in (CPU_QUEUE, GPU_QUEUE) for key in self.ledger.due(queue, time.time())]:
            assert run_job(due[0], "w", self.ledger, self.settings) != "nothing"

    def asked(self, key: str, items: int | None = None, reason: str = "eight are few") -> str:
        """Asks for more samples of the verdict that counts; its digest."""
        digest = self.verdict(key).digest
        stated = {"decision": ReviewDecision.MORE_SAMPLES, "reviewer": "ana", "reason": reason, "items": items}
        review = Review.model_validate(stated | {"decided_at": int(time.time()), "verdict_digest": digest})
        self.ledger.ask_review(key, review, time.time())
        return digest

    def verdict(self, key: str) -> Verdict:
        kept = self.ledger.verdict(key)
        assert kept is not None
        return kept[0]

    def evidence(self, key: str) -> Evidence:
        row = self.ledger.evaluation(key)
        assert row is not None
        found = self.ledger.evidence(row.evidence_key or "")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    room = tmp_path_factory.mktemp("more")
    (room / "suite.yaml").write_text(SUITE)
    items = (SHIPPED / "staged" / "math.jsonl").read_text().splitlines()
    (room / "math.jsonl").write_text("\n".join(items[:ITEMS]))
    (room / "policy.yaml").write_text(POLICY)
    migrate(ledger_url("", room))
    generate_key(room / "key.pem")
    settings = Settings(
        state_dir=room, signing_key_file=room / "key.pem", policies=room / "policy.yaml", device="cpu", threads=1
    )
    made = Bench(settings, SqlLedger(ledger_url("", room)))
    take_in(settings, made.ledger, str(BASE), suite=str(room), name="staged base")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inspect, "build_registry", lambda _: made.registry)
        yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def gentle(fine_tune: FineTunes) -> Path:
    return fine_tune("benign_lora")


def n_of(evidence: Evidence) -> int:
    found = evidence.find(Name.RETENTION, "math")
    assert found is not None
    return found.n


def test_a_doubt_that_more_samples_resolve_is_approved_with_who_asked(bench: Bench, gentle: Path) -> None:
    key = bench.register(gentle)
    first, before = bench.verdict(key), bench.evidence(key)
    assert (first.outcome, n_of(before)) == (Outcome.NEEDS_REVIEW, 8)
    assert [kept.reserve for kept in before.paired_outcomes] == [ITEMS - 8]

    bench.asked(key, items=5)
    bench.work()
    second, between = bench.verdict(key), bench.evidence(key)
    assert (second.outcome, n_of(between)) == (Outcome.NEEDS_REVIEW, 16)
    assert "(more samples were compared, as ana asked: eight are few)" in second.reason
    assert bench.ledger.evidence(before.key) == before

    bench.asked(key, reason="all of them then")
    bench.work()
    third, after = bench.verdict(key), bench.evidence(key)
    assert third.outcome is Outcome.APPROVED, third.reason
    assert [(each.reviewer, each.reason, each.items) for each in third.samples_asked] == [
        ("ana", "eight are few", 5),
        ("ana", "all of them then", None),
    ]
    assert [each.verdict_digest for each in third.samples_asked] == [first.digest, second.digest]
    assert 16 < n_of(after) <= ITEMS
    assert after.paired_outcomes == ()
    assert third.evidence_digest == after.digest
    assert third.expires_at <= first.expires_at
    # What it took adds up, and nothing else was measured again.
    assert [cost.stage for cost in after.costs][: len(before.costs)] == [cost.stage for cost in before.costs]
    assert [cost.stage for cost in after.costs].count("more samples") == 2
    assert len(after.measurements) == len(before.measurements)
    assert bench.ledger.audit_break() is None


def test_asking_once_for_all_finds_what_asking_bit_by_bit_finds(bench: Bench, gentle: Path) -> None:
    once, twice = bench.register(gentle), bench.register(gentle)
    assert bench.evidence(once) == bench.evidence(twice)
    bench.asked(once)
    for items in (8, 40):
        bench.asked(twice, items=items)
        bench.work()
    assert bench.verdict(once).outcome is bench.verdict(twice).outcome is Outcome.APPROVED
    assert bench.evidence(once).measurements == bench.evidence(twice).measurements
    assert bench.evidence(once).key != bench.evidence(twice).key


def test_a_job_that_was_killed_and_runs_again_finds_the_same_numbers(bench: Bench, gentle: Path) -> None:
    key = bench.register(gentle)
    job = extend_key(key, bench.asked(key))
    claim = bench.ledger.claim(job, "killed", 60, time.time())
    assert claim is not None
    wrote = bench.ledger.evidence(str(extend.run(JobContext(claim, bench.ledger, bench.settings)).result["evidence"]))
    assert wrote is not None
    assert bench.ledger.abandon("killed", time.time(), error="killed", max_attempts=3)
    bench.work()
    assert bench.evidence(key).key == wrote.key
    assert bench.evidence(key).measurements == wrote.measurements
    assert bench.verdict(key).outcome is Outcome.APPROVED


def test_samples_that_cannot_be_compared_leave_the_doubt_and_it_can_be_decided_again(
    bench: Bench, gentle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(gentle, tmp_path / "changed"))
    key = bench.register(folder)
    (folder / "adapter_config.json").write_text("{}")
    bench.asked(key)
    bench.work()
    verdict = bench.verdict(key)
    assert verdict.outcome is Outcome.NEEDS_REVIEW
    assert "more samples could not be compared (NotMeasurable: expected adapter_config.json" in verdict.reason
    assert len(verdict.samples_asked) == 1
    # A new verdict, on which nobody decided yet.
    assert bench.ledger.review(key, verdict.digest) is None
    again = bench.asked(key, reason="once more")
    bench.work()
    assert bench.verdict(key).digest not in (verdict.digest, again)


def test_a_replay_compares_the_verdict_that_was_given_on_the_samples_it_judges(bench: Bench, gentle: Path) -> None:
    key = bench.register(gentle)
    bench.asked(key)
    bench.work()
    replayed = next(each for each in bench.ledger.judged_since(0.0) if each.evaluation == key)
    assert (replayed.verdict, replayed.evidence) == (bench.verdict(key), bench.evidence(key))
