"""Policies tried on what the ledger holds, and the ledger's record verified and exported, by command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from builders import a_verdict, a_version, an_evidence
from typer.testing import CliRunner

import gate.bootstrap
from gate.adapters import ledger_history
from gate.adapters.database import Database
from gate.adapters.ledger_tables import audit
from gate.adapters.policy_files import SHIPPED, load_policy
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.cli import app
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.judging import judge
from gate.domain.verdict import Outcome

DEFAULT = SHIPPED / "default.yaml"
NOW = 4_000_000_000.0
"""Later than any clock that runs these tests: everything stored is recent."""


def keep(ledger: SqlLedger, number: int) -> None:
    """A version judged by the shipped policy, from its request to its verdict."""
    policy, version = load_policy(DEFAULT), a_version(version=str(number))
    evidence = an_evidence(key=f"{number:064x}")
    request = EvaluationRequest.of(version, policy.name, policy.digest)
    ledger.request_evaluation(request, NOW)
    inspect = ledger.claim(inspect_key(request.key), "w", 60, NOW)
    ledger.save_evidence(inspect, evidence, NOW)
    ledger.finish(inspect, NOW)
    claim = ledger.claim(judge_key(request.key), "w", 60, NOW)
    verdict = judge(policy, evidence, subject=version.identity, now=int(NOW))
    ledger.save_verdict(claim, request.key, verdict, {}, NOW)
    ledger.finish(claim, NOW)


@pytest.fixture
def ledger(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlLedger]:
    migrate(database_url)
    made = SqlLedger(database_url)
    monkeypatch.setattr(gate.bootstrap, "build_ledger", lambda _: made)
    keep(made, 1)
    keep(made, 2)
    yield made
    made.close()


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """The shipped policy with a limit that the stored versions miss."""
    file = tmp_path / "draft.yaml"
    file.write_text(DEFAULT.read_text().replace("at_most: 0.25", "at_most: 0.001"))
    return file


def behind_the_triggers(url: str, change: str, statement: sa.Executable) -> None:
    """Does what only the owner of the database can do."""
    trigger = f"audit_no_{change}" if url.startswith("sqlite") else "audit_never_changes ON audit"
    database = Database(url)
    database.write(lambda c: (c.execute(sa.text(f"DROP TRIGGER {trigger}")), c.execute(statement)))
    database.close()


def run(*words: object) -> tuple[int, str]:
    ended = CliRunner().invoke(app, [str(word) for word in words])
    return ended.exit_code, ended.stdout


def test_a_draft_tells_which_approvals_it_would_take_and_keeps_to_a_budget(ledger: SqlLedger, draft: Path) -> None:
    status, text = run("policy", "replay", "--policy", draft, "--budget", "0.02", "--json")
    found = json.loads(text)

    assert (status, found["lost"], found["lost_rate"], found["over_budget"]) == (1, 2, 1.0, True)
    assert {f["after"] for f in found["flips"]} == {Outcome.NEEDS_REVIEW}
    assert found["by_rule"] == {"still-a-fine-tune": 2}
    assert run("policy", "replay", "--policy", DEFAULT, "--budget", "0.02")[0] == 0


def test_a_team_that_loosens_its_organisations_policy_is_refused(ledger: SqlLedger, draft: Path) -> None:
    assert run("policy", "diff", DEFAULT, draft, "--tighten-only")[0] == 0

    status, text = run("policy", "diff", draft, DEFAULT, "--tighten-only")

    assert status == 1
    assert text.startswith("rule still-a-fine-tune: loosened")
    assert "loosened: rules.still-a-fine-tune: expected a rule on displacement_relative at least as strict" in text


def test_nothing_to_tell_by_exceeds_every_budget(
    tmp_path: Path, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = SqlLedger(f"sqlite:///{tmp_path / 'empty.db'}")
    migrate(f"sqlite:///{tmp_path / 'empty.db'}")
    monkeypatch.setattr(gate.bootstrap, "build_ledger", lambda _: empty)

    status, text = run("policy", "replay", "--policy", DEFAULT, "--budget", "1")

    empty.close()
    assert status == 1
    assert "approvals lost: 0 of 0 (budget 1: exceeded)" in text


def test_a_version_in_the_ledger_is_explained(ledger: SqlLedger) -> None:
    status, text = run("policy", "explain", "models:/my-llm/2", "--policy", DEFAULT)

    assert status == 0
    assert text.startswith("approved: ")
    assert "[block] capabilities-kept: pass: Safety" in text


def test_two_versions_of_the_same_bytes_are_no_ground_for_a_limit(ledger: SqlLedger) -> None:
    status, text = run("policy", "suggest", "--policy", DEFAULT, "--json")

    assert status == 1
    assert {(s["n"], s["limit"]) for s in json.loads(text)["default"]} == {(1, None)}


def test_the_history_tells_each_version_once_with_its_newest_verdict(ledger: SqlLedger) -> None:
    request = EvaluationRequest.of(a_version(version="1"), "other", "e" * 64)
    ledger.request_evaluation(request, NOW + 1)
    inspect = ledger.claim(inspect_key(request.key), "w", 60, NOW + 1)
    ledger.save_evidence(inspect, an_evidence(), NOW + 1)
    ledger.finish(inspect, NOW + 1)
    claim = ledger.claim(judge_key(request.key), "w", 60, NOW + 1)
    ledger.save_verdict(claim, request.key, a_verdict(subject=request.version.identity), {}, NOW + 1)

    found = list(ledger.judged_since(0))

    assert [(j.version.version, j.verdict.policy) for j in found] == [("1", "default"), ("2", "default")]
    assert found[0].verdict.outcome is Outcome.BLOCKED
    assert list(ledger.judged_since(NOW + 2)) == []


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_the_history_is_the_same_however_large_its_pages(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    keep(ledger, 3)
    monkeypatch.setattr(ledger_history, "PAGE", page)

    assert sorted(j.version.version for j in ledger.judged_since(0)) == ["1", "2", "3"]
    assert len(list(ledger.judged_since(0, "my-llm"))) == 3
    assert list(ledger.judged_since(0, "another")) == []


def test_the_exported_record_ends_in_the_hash_that_verify_tells(ledger: SqlLedger) -> None:
    status, text = run("audit", "verify", "--json")
    lines = [json.loads(line) for line in run("audit", "export")[1].splitlines()]

    assert status == 0
    assert json.loads(text)["last_hash"] == lines[-1]["hash"]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert run("audit", "export", "--after", lines[-1]["seq"]) == (0, "")


def test_an_end_cut_off_shows_by_a_hash_kept_elsewhere(ledger: SqlLedger, database_url: str) -> None:
    kept = json.loads(run("audit", "verify", "--json")[1])["last_hash"]
    assert run("audit", "verify", "--expect", kept)[0] == 0

    last = ledger.audit_entries()[-1].seq
    behind_the_triggers(database_url, "delete", sa.delete(audit).where(audit.c.seq == last))

    assert run("audit", "verify")[0] == 0
    assert run("audit", "verify", "--expect", kept)[0] == 1


def test_a_changed_entry_is_named(ledger: SqlLedger, database_url: str) -> None:
    behind_the_triggers(database_url, "update", sa.update(audit).where(audit.c.seq == 2).values(actor="nobody"))

    status, text = run("audit", "verify")

    assert status == 1
    assert text.startswith("broken at entry 2")
