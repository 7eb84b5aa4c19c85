"""Approvals taken back in the ledger, on both databases, and by the command."""

import json
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from approvals import a_key
from builders import a_verdict, a_version
from fakes import FakeRegistry
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

import gate.bootstrap
from gate.adapters.revocations import opened
from gate.adapters.revoking import Revoker
from gate.adapters.signing import DsseSigner, Verifier
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.cli import app
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.verdict import Outcome
from gate.settings import Settings

NOW = 1_795_000_000.0
POLICY = "d" * 64


def approve(ledger: SqlLedger, version: ModelVersion, digest: str) -> str:
    request = EvaluationRequest.of(version, "default", POLICY)
    ledger.request_evaluation(request, NOW)
    ledger.finish(ledger.claim(inspect_key(request.key), "w", 60, NOW), NOW)
    claim = ledger.claim(judge_key(request.key), "w", 60, NOW)
    verdict = a_verdict(subject=version.identity, outcome=Outcome.APPROVED, reason="Good.", candidate_digest=digest)
    ledger.save_verdict(claim, request.key, verdict, {"summary": {}}, NOW)
    ledger.finish(claim, NOW)
    return request.key


@pytest.fixture
def ledger(database_url: str):
    migrate(database_url)
    made = SqlLedger(database_url)
    yield made
    made.close()


@pytest.fixture
def revoker(ledger: SqlLedger, tmp_path: Path) -> Revoker:
    return Revoker(ledger, DsseSigner(a_key(tmp_path)[0]), lambda: NOW)


def test_a_revoked_version_and_its_twins_read_as_blocked_everywhere(ledger: SqlLedger, revoker: Revoker) -> None:
    first, twin, other = (a_version(version=number) for number in ("1", "2", "3"))
    keys = [
        approve(ledger, version, digest)
        for version, digest in zip((first, twin, other), ("1" * 64, "1" * 64, "2" * 64), strict=True)
    ]

    revoked = revoker.revoke(first, "  a broken\nsuite ", "operator")

    assert {v.version for v in revoked} == {"1", "2"}
    for key, outcome in zip(keys, ("blocked", "blocked", "approved"), strict=True):
        assert (ledger.evaluation(key).outcome, ledger.verdict(key)[0].outcome) == (outcome, outcome)
    assert ledger.verdict(keys[1])[0].reason.endswith(": a broken suite")
    assert ledger.audit_break() is None


def test_bytes_that_are_revoked_stay_so_under_every_later_name(ledger: SqlLedger, revoker: Revoker) -> None:
    approve(ledger, a_version(version="1"), "1" * 64)
    revoker.revoke(a_version(version="1"), "why", "operator")

    later = approve(ledger, a_version(name="elsewhere", version="1"), "1" * 64)

    assert ledger.verdict(later)[0].outcome is Outcome.BLOCKED


def test_revoking_twice_is_revoking_once(ledger: SqlLedger, revoker: Revoker) -> None:
    approve(ledger, a_version(), "1" * 64)
    for reason in ("first", "second"):
        revoker.revoke(a_version(), reason, "operator")

    assert [entry.reason for entry in ledger.revocations()] == ["first"]


def test_what_was_never_evaluated_or_has_no_reason_is_not_revoked(ledger: SqlLedger, revoker: Revoker) -> None:
    with pytest.raises(InvalidInput, match="expected an evaluation of"):
        revoker.revoke(a_version(), "why", "operator")
    with pytest.raises(InvalidInput, match="expected a reason"):
        revoker.revoke(a_version(), " ", "operator")


@pytest.mark.parametrize("statement", ["UPDATE revocation SET reason = 'x'", "DELETE FROM revocation"])
def test_no_revocation_is_changed_or_removed_in_the_database(
    ledger: SqlLedger, revoker: Revoker, statement: str
) -> None:
    approve(ledger, a_version(), "1" * 64)
    revoker.revoke(a_version(), "why", "operator")

    with pytest.raises(DBAPIError, match="never change"), ledger._database.engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_the_commands_revoke_and_print_the_signed_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = a_key(tmp_path)
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger, registry = SqlLedger(url), FakeRegistry()
    approve(ledger, registry.add(a_version()), "1" * 64)
    given = Settings(signing_key_file=private, database_url=url)
    monkeypatch.setattr("gate.cli.settings", lambda: given)
    monkeypatch.setattr(gate.bootstrap, "build_registry", lambda _: registry)

    told = CliRunner().invoke(app, ["revoke", "models:/my-llm/3", "--reason", "a broken suite"])
    printed = CliRunner().invoke(app, ["revocations", "--days", "7"])

    assert (told.exit_code, told.stdout) == (0, "revoked: models:/my-llm/3\n")
    known = opened(Verifier.from_file(public), printed.stdout)
    assert [(entry.subject, entry.reason) for entry in known.entries] == [(a_version().identity, "a broken suite")]
    assert known.expires_at == known.issued_at + 7 * 86_400
    assert abs(known.issued_at - time.time()) < 600
    assert json.loads(printed.stdout)["payloadType"] == "application/vnd.basin-gate.revocations+json"
    ledger.close()
