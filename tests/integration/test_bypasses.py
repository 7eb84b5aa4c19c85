"""Promotions made around the gate: seen, told, and by policy undone, whatever the order of things."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from approvals import a_key, an_attestation
from builders import a_verdict, a_version, an_evidence
from fakes import FakeClock, FakeRegistry

from gate.adapters.ledger_statistics import REVERTS
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.policy_files import load_policies
from gate.adapters.signing import Verifier
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.adapters.standing import Standing
from gate.dispatcher.promotions import PromotionWatch
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.policy import OnBlocked, PolicySet
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome
from gate.ports import Ledger


def judge(
    ledger: Ledger,
    policies: PolicySet,
    version: ModelVersion,
    now: float,
    outcome: Outcome = Outcome.APPROVED,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """An ended evaluation of the version under the policy now in force, valid for an hour."""
    policy = policies.policies[0]
    request = EvaluationRequest.of(version, policy.name, policy.digest)
    ledger.request_evaluation(request, now)
    ledger.finish(ledger.claim(inspect_key(request.key), "w", 60, now), now)
    claim = ledger.claim(judge_key(request.key), "w", 60, now)
    verdict = a_verdict(subject=version.identity, outcome=outcome, expires_at=int(now) + 3600)
    ledger.save_verdict(claim, request.key, verdict, {"summary": summary or {}}, now)
    ledger.finish(claim, now)


@dataclass
class Watched:
    """A watch over a registry in memory, under the default policy with ``on_bypass: restore``."""

    ledger: SqlLedger
    registry: FakeRegistry
    clock: FakeClock
    metrics: DispatcherMetrics
    verifier: Verifier
    private: Path

    def __post_init__(self) -> None:
        self.under(on_bypass="restore")

    def under(self, **changes: object) -> None:
        self.policies = PolicySet(policies=(load_policies().policies[0].model_copy(update=changes),))
        standing = Standing(self.ledger, self.policies)
        self.watch = PromotionWatch(standing, self.registry, self.clock, self.metrics, self.verifier)

    def add(self, number: str, outcome: Outcome | None = None, **changes: object) -> ModelVersion:
        version = self.registry.add(a_version(version=number, **changes))
        if outcome is not None:
            judge(self.ledger, self.policies, version, self.clock(), outcome)
        return version

    def promote(self, number: str, alias: str = "champion") -> None:
        self.registry.pointers["my-llm", alias] = number

    def look(self) -> dict[tuple[str, str], str]:
        self.watch.read()
        self.watch.look()
        return self.registry.pointers

    @property
    def figures(self) -> Mapping[str, float]:
        return self.ledger.statistics(self.clock()).figures

    def drifted(self) -> float:
        return self.figures["drifted"]

    def undone(self, result: str) -> float:
        if result == "failed":
            return self.metrics.registry.get_sample_value("gate_failed_reverts_total") or 0.0
        facts = self.ledger.statistics(self.clock()).facts
        return sum(count for fact, count in facts.items() if REVERTS.get(fact) == result)

    def events(self) -> list[str]:
        with self.ledger._database.engine.connect() as connection:
            rows = connection.exec_driver_sql("select event from audit where actor = 'dispatcher' order by seq")
            return [str(row.event) for row in rows]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    private, public = a_key(tmp_path)
    clock = FakeClock(time.time())
    made = Watched(SqlLedger(url), FakeRegistry(), clock, DispatcherMetrics(), Verifier.from_file(public), private)
    yield made
    made.ledger.close()


@pytest.mark.parametrize("outcome", [None, Outcome.BLOCKED, Outcome.NEEDS_REVIEW, Outcome.ERROR])
def test_an_alias_moved_around_the_gate_goes_back_to_the_last_approved_version(watched, outcome):
    watched.add("3", Outcome.APPROVED)
    watched.promote("3")
    watched.look()
    watched.add("4", outcome)
    watched.promote("4")
    assert watched.look() == {("my-llm", "champion"): "3"}
    assert watched.events() == ["promoted without approval", "alias restored"]
    assert (watched.drifted(), watched.undone("restored")) == (0, 1)


def test_what_the_alias_pointed_at_is_remembered_by_another_process_and_each_attempt_is_told(watched):
    watched.add("3", Outcome.APPROVED)
    watched.add("4")
    watched.promote("3")
    watched.look()
    watched.under(on_bypass="restore")
    for _ in range(2):
        watched.promote("4")
        assert watched.look()["my-llm", "champion"] == "3"
    assert watched.events() == ["promoted without approval", "alias restored"] * 2


def test_an_alias_that_never_held_an_approved_version_is_taken_off(watched):
    watched.add("3")
    watched.promote("3", "Chämpion")
    assert watched.look() == {}
    assert watched.undone("removed") == 1


def test_an_alias_does_not_go_back_to_a_version_that_is_gone_or_was_made_again_or_expired(watched):
    watched.add("3", Outcome.APPROVED)
    watched.promote("3")
    watched.look()
    watched.registry.add(a_version(version="3", created_ms=1_795_000_000_009))
    watched.add("4")
    watched.promote("4")
    assert watched.look() == {}


def test_without_the_policys_word_an_alias_is_told_of_and_left(watched):
    for changes in ({"on_bypass": "alert"}, {"on_bypass": "restore", "enforcement": "dry_run"}):
        watched.under(**changes)
        watched.add("3")
        watched.promote("3")
        for _ in range(3):
            assert watched.look() == {("my-llm", "champion"): "3"}
    assert watched.events() == ["promoted without approval"]


def test_of_an_alias_that_is_only_watched_a_warning_tells_and_a_dry_run_does_not_and_neither_undoes(watched):
    kept = load_policies().policies[0].protected
    for mode, told in (("dry_run", []), ("warn", ["promoted without approval"])):
        watched.under(on_bypass="restore", protected=kept.model_copy(update={"modes": {"champion": mode}}))
        watched.add("3")
        watched.promote("3")
        for _ in range(2):
            assert watched.look() == {("my-llm", "champion"): "3"}
        assert watched.events() == told
    assert watched.drifted() == 1


def test_an_unprotected_alias_is_free(watched):
    watched.add("3")
    watched.promote("3", "challenger")
    assert watched.look() == {("my-llm", "challenger"): "3"}
    assert watched.events() == []


def test_a_changed_policy_takes_no_alias_off_while_it_is_judged_anew_nor_after(watched):
    version = watched.add("3", Outcome.APPROVED)
    watched.promote("3")
    watched.look()
    watched.under(on_bypass="restore", description="another text")
    assert watched.look() == {("my-llm", "champion"): "3"}
    assert (watched.events(), watched.drifted()) == ([], 0)
    judge(watched.ledger, watched.policies, version, watched.clock(), Outcome.BLOCKED)
    assert watched.look() == {("my-llm", "champion"): "3"}
    assert watched.events() == ["promoted on an approval that a later verdict withdrew"]
    assert watched.drifted() == 1


def test_a_policy_may_have_a_place_taken_from_a_version_that_is_blocked_now(watched):
    watched.under(on_blocked=OnBlocked(restore=True))
    watched.add("2", Outcome.APPROVED)
    watched.promote("2")
    watched.look()
    version = watched.add("3", Outcome.APPROVED)
    watched.promote("3")
    watched.look()
    watched.under(on_blocked=OnBlocked(restore=True), description="another text")
    judge(watched.ledger, watched.policies, version, watched.clock(), Outcome.BLOCKED)
    judge(watched.ledger, watched.policies, watched.add("2"), watched.clock(), Outcome.APPROVED)
    watched.look()
    assert watched.events()[-2:] == ["promoted on an approval that a later verdict withdrew", "alias removed"]
    assert ("my-llm", "champion") not in watched.registry.pointers


def test_a_gate_that_lost_its_ledger_believes_the_signed_approvals(watched):
    version = watched.add("3")
    watched.registry.add(
        version.model_copy(update={"tags": {TAG_ATTESTATION: an_attestation(watched.private, version.identity)}})
    )
    watched.promote("3")
    assert watched.look() == {("my-llm", "champion"): "3"}
    other = watched.add("4", tags={TAG_ATTESTATION: an_attestation(watched.private, version.identity)})
    watched.promote(other.version)
    assert watched.look() == {}


def test_a_copy_of_an_approved_version_may_stay_until_its_own_verdict(watched):
    watched.add("3", Outcome.APPROVED)
    copy = watched.add("4", source="models:/my-llm/3", created_ms=1_795_000_000_001)
    watched.promote("4")
    assert watched.look() == {("my-llm", "champion"): "4"}
    judge(watched.ledger, watched.policies, copy, watched.clock(), Outcome.BLOCKED)
    assert watched.look() == {}


def test_when_an_approval_expires_the_gates_own_alias_is_taken_off_and_others_are_told_of(watched):
    watched.add("3", Outcome.APPROVED)
    watched.promote("3", "approved")
    watched.promote("3", "champion")
    watched.look()
    watched.clock.now += 3601
    assert watched.look() == {("my-llm", "champion"): "3"}
    assert (watched.undone("expired"), watched.drifted()) == (1, 1)
    assert watched.events().count("promoted on an approval that expired") == 2


def test_one_alias_that_cannot_be_moved_keeps_no_other_from_being_moved(watched, monkeypatch):
    watched.add("3")
    watched.promote("3", "champion")
    watched.promote("3", "production")
    apply = watched.registry.apply

    def refusing(version, actions):
        if actions[0].alias == "champion":
            raise InvalidInput("no")
        apply(version, actions)

    monkeypatch.setattr(watched.registry, "apply", refusing)
    assert watched.look() == {("my-llm", "champion"): "3"}
    assert (watched.undone("failed"), watched.undone("removed"), watched.drifted()) == (1, 1, 1)


def test_artifacts_that_no_longer_look_as_judged_are_told_once(watched):
    version = watched.add("3", Outcome.APPROVED)
    policy = watched.policies.policies[0]
    row = watched.ledger.evaluation_of(version.identity, policy.digest)
    watched.ledger.enqueue([JobRequest("inspect:more", "inspect", "cpu")], watched.clock())
    claim = watched.ledger.claim("inspect:more", "w", 60, watched.clock())
    watched.ledger.save_evidence(claim, an_evidence(key=row.evidence_key), watched.clock())
    watched.promote("3")
    judged = {file.path: file.size for file in an_evidence().candidate.files}
    seen = []
    for listed in (judged, judged | {"config.json": 11}, judged | {"config.json": 11}, judged | {"x.py": 1}, {}):
        watched.registry.listed["3"] = listed
        watched.look()
        seen.append(watched.figures["changed"])
    assert seen == [0, 1, 1, 1, 1]
    assert watched.events() == ["artifacts changed after the verdict"] * 3
    assert watched.registry.pointers == {("my-llm", "champion"): "3"}
