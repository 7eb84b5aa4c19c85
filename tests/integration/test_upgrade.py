"""A ledger and tags as the first schema left them, real ones, brought to the present: what was decided stays decided.

``golden/ledger_0001`` holds every row of a ledger at migration 0001 and the tags that stood in MLflow beside it, as the
product of that time made them from two real fine-tunes; its signing key is gone, its public key is there.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from approvals import a_key
from builders import a_version
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel

from gate.adapters.database import Database
from gate.adapters.ledger_documents import DOCUMENT_SCHEMA
from gate.adapters.ledger_tables import metadata, verdict
from gate.adapters.policy_files import load_policies, select_policy
from gate.adapters.signing import DsseSigner, Verifier
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.adapters.standing import Standing
from gate.domain.attestation import PAYLOAD_TYPE, read_summary
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Evidence
from gate.domain.jobs import inspect_key
from gate.domain.permission import Decision
from gate.domain.rehearsal import replay
from gate.domain.verdict import Outcome, Verdict
from gate.pages.html_report import html
from gate.registry_guard import GuardMixin, guarded_store

FROZEN = Path(__file__).parents[1] / "golden" / "ledger_0001"
ROWS: Mapping[str, list[dict[str, Any]]] = json.loads((FROZEN / "ledger.json").read_text(encoding="utf-8"))
REGISTRY: Mapping[str, Any] = json.loads((FROZEN / "mlflow.json").read_text(encoding="utf-8"))
MODEL = "help desk"
OUTCOMES = {"1": Outcome.APPROVED, "2": Outcome.BLOCKED}
GIVEN = {row["key"]: json.loads(row["body"]) for row in ROWS["verdict"]}
NOW = max(each["judged_at"] for each in GIVEN.values()) + 60
EXPIRED = max(each["expires_at"] for each in GIVEN.values())


def restore(url: str) -> None:
    """Makes the ledger as it was: the first migration's tables with every row of then."""
    database, tables = Database(url), sa.MetaData()
    database.migrate("0001")
    database.write(lambda c: tables.reflect(c))
    database.write(lambda c: [c.execute(sa.insert(tables.tables[name]), rows_of(name)) for name in ROWS])
    if database.engine.dialect.name == "postgresql":
        database.write(lambda c: [c.execute(sa.text(SEQUENCE.format(name))) for name in ("outbox", "audit")])
    database.close()


SEQUENCE = "SELECT setval(pg_get_serial_sequence('{0}', 'seq'), (SELECT max(seq) FROM {0}))"


def rows_of(name: str) -> list[dict[str, Any]]:
    if name != "delivery":
        return ROWS[name]
    return [row | {"body": row["body"].encode()} for row in ROWS[name]]


@pytest.fixture
def upgraded(database_url: str) -> Iterator[SqlLedger]:
    """The old ledger under the present code."""
    restore(database_url)
    migrate(database_url)
    ledger = SqlLedger(database_url)
    yield ledger
    ledger.close()


def old_requests() -> Mapping[str, EvaluationRequest]:
    """What was asked then, by version number."""
    asked = [EvaluationRequest.model_validate_json(row["request"]) for row in ROWS["evaluation"]]
    return {request.version.version: request for request in asked if request.version.name == MODEL}


def test_a_ledger_of_the_first_schema_gets_the_present_tables_and_keeps_every_row(database_url: str) -> None:
    restore(database_url)
    migrate(database_url)
    database, tables = Database(database_url), sa.MetaData()
    assert database.read(lambda c: list(compare_metadata(MigrationContext.configure(c), metadata))) == []
    database.read(lambda c: tables.reflect(c))
    for name in ROWS:
        wanted = sa.select(*(tables.tables[name].c[column] for column in ROWS[name][0]))
        found = database.read(lambda c, query=wanted: [dict(row) for row in c.execute(query).mappings()])
        assert sorted(map(repr, found)) == sorted(map(repr, rows_of(name))), name
    database.close()


def test_old_verdicts_are_read_as_they_were_given_and_their_record_holds(upgraded: SqlLedger) -> None:
    audited = [json.loads(row["detail"]) for row in ROWS["audit"] if row["event"] == "verdict"]
    assert len(audited) == len(GIVEN) == 3
    for entry in audited:
        kept = upgraded.verdict(entry["evaluation"])
        assert kept is not None
        assert (kept[0].digest, kept[0].outcome) == (entry["verdict"], entry["outcome"])
    assert upgraded.audit_break() is None


@pytest.mark.parametrize("number", OUTCOMES)
def test_old_attestations_still_verify_and_count_for_as_long_as_they_said(upgraded: SqlLedger, number: str) -> None:
    request = old_requests()[number]
    found, envelopes = upgraded.verdict(request.key) or (None, {})
    assert found is not None
    verifier = Verifier.from_file(FROZEN / "trusted-keys.pem")
    summary = read_summary(verifier.open(envelopes["summary"], PAYLOAD_TYPE))
    assert (summary.verdict_digest, summary.outcome) == (found.digest, OUTCOMES[number])
    refusal = summary.refusal(request.version.identity, NOW)
    assert refusal is None if summary.passed else refusal is not None and "blocked by policy default" in refusal
    assert summary.refusal(request.version.identity, EXPIRED) is not None
    measured = json.loads(verifier.open(envelopes["measurement"], PAYLOAD_TYPE))["predicate"]
    assert Verdict.model_validate(measured["verdict"]) == found
    assert Evidence.model_validate(measured["evidence"]) == upgraded.evidence(found.evidence_key)


@pytest.mark.parametrize("number", OUTCOMES)
def test_old_verdicts_are_shown_with_their_evidence(upgraded: SqlLedger, number: str) -> None:
    row = upgraded.evaluation(old_requests()[number].key)
    assert row is not None
    kept, evidence = upgraded.verdict(row.request.key), upgraded.evidence(row.evidence_key or "")
    assert kept is not None
    assert evidence is not None
    assert (row.state, row.outcome, row.projected) == ("done", OUTCOMES[number], True)
    page = html(kept[0], evidence, f"{MODEL} version {number}")
    assert kept[0].policy_digest in page
    assert upgraded.profiles(kept[0].base_digest or "") != []


def test_old_evidence_is_judged_again_to_the_same_outcomes(upgraded: SqlLedger) -> None:
    policies = load_policies(FROZEN / "policy.yaml")
    history = [each for each in upgraded.judged_since(0) if each.version.name == MODEL]
    again = replay([(select_policy(policies, each.version), each) for each in history])
    assert (again.judged, again.flips, again.lost) == (2, (), 0)
    assert again.after == {Outcome.APPROVED: 1, Outcome.BLOCKED: 1}


def test_what_the_old_policy_approved_is_answered_by_that_policy_or_asked_again(upgraded: SqlLedger) -> None:
    standing = Standing(upgraded, load_policies(FROZEN / "policy.yaml"))
    decisions = {n: standing.answer(request.version, NOW).decision for n, request in old_requests().items()}
    same_text = {request.policy_digest for request in old_requests().values()} == {standing.policies.policies[0].digest}
    kept = {"1": Decision.ALLOWED, "2": Decision.DENIED}
    assert decisions == (kept if same_text else dict.fromkeys(kept, Decision.PENDING))


def test_an_upgraded_ledger_takes_new_work(upgraded: SqlLedger) -> None:
    version = a_version(name=MODEL, version="3")
    request = EvaluationRequest.of(version, "default", "d" * 64)
    assert upgraded.request_evaluation(request, NOW)
    assert [item.payload["key"] for item in upgraded.outbox(NOW)] == [inspect_key(request.key)]
    assert upgraded.claim(inspect_key(request.key), "worker", 60, NOW) is not None
    assert upgraded.audit_break() is None
    assert not upgraded.request_evaluation(old_requests()["1"], NOW)


# -- the guard, before which MLflow's own rows stand


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuardMixin:
    """MLflow's registry with the old versions and their tags, behind the present guard."""
    monkeypatch.setenv("GATE_TRUSTED_KEYS_FILE", str(FROZEN / "trusted-keys.pem"))
    monkeypatch.setenv("GATE_POLICIES", str(FROZEN / "policy.yaml"))
    store = guarded_store(f"gate+sqlite:///{tmp_path}/mlflow.db")
    store._guard._clock = lambda: NOW
    store.create_registered_model(MODEL)
    with store.ManagedSessionMaker(read_only=False) as session:
        workspace = session.query(SqlRegisteredModel).one().workspace
        for number, version in REGISTRY["mv"].items():
            at = {"workspace": workspace, "name": MODEL, "version": int(number)}
            made = {"creation_time": version["created"], "source": version["source"], "run_id": version["run"]}
            session.add(SqlModelVersion(**at, **made, current_stage="None", storage_location=version["source"]))
            session.add_all(SqlModelVersionTag(**at, key=k, value=v) for k, v in REGISTRY["tags"][number].items())
    return store


def test_old_tags_promote_what_was_approved_and_nothing_else(guarded: GuardMixin) -> None:
    guarded.set_registered_model_alias(MODEL, "champion", "1")
    assert guarded.get_model_version_by_alias(MODEL, "champion").version in (1, "1")
    with pytest.raises(MlflowException, match="blocked by policy default") as refused:
        guarded.set_registered_model_alias(MODEL, "champion", "2")
    assert refused.value.get_http_status_code() == 403


def test_an_old_approval_ends_when_it_said_it_would(guarded: GuardMixin) -> None:
    guarded._guard._clock = lambda: EXPIRED
    with pytest.raises(MlflowException, match="expired"):
        guarded.set_registered_model_alias(MODEL, "champion", "1")


def test_the_guard_refuses_a_tag_of_a_newer_schema_and_says_what_to_do(
    guarded: GuardMixin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = a_key(tmp_path)
    monkeypatch.setenv("GATE_TRUSTED_KEYS_FILE", str(public))
    statement = json.loads(base64.b64decode(json.loads(REGISTRY["tags"]["1"]["gate.vsa"])["payload"]))
    predicate = statement["predicate"]
    predicate["https://basin-gate.dev/verdict/v2"] = predicate.pop("https://basin-gate.dev/verdict/v1")
    newer = json.dumps(DsseSigner(private).sign(json.dumps(statement).encode(), PAYLOAD_TYPE))
    with guarded.ManagedSessionMaker(read_only=False) as session:
        session.query(SqlModelVersionTag).filter_by(version=1, key="gate.vsa").update({"value": newer})
    with pytest.raises(MlflowException, match=r"expected .*VSA v1.* found .*upgrade what reads it"):
        guarded.set_registered_model_alias(MODEL, "champion", "1")


# -- what a newer program left


def test_a_ledger_that_a_newer_program_upgraded_is_refused(upgraded: SqlLedger, database_url: str) -> None:
    upgraded._database.write(lambda c: c.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(InvalidInput, match=r"expected the ledger's schema at \d+ or older, found 9999.*upgrade"):
        migrate(database_url)


@pytest.mark.parametrize("change", [{"schema": DOCUMENT_SCHEMA + 1}, {"body": '{"from": "the future"}'}])
def test_a_document_that_a_newer_program_wrote_is_not_guessed_at(
    upgraded: SqlLedger, change: Mapping[str, object]
) -> None:
    row = {"key": "newer", "body": json.dumps(next(iter(GIVEN.values()))), "envelope": "{}", "saved_at": 1.0}
    upgraded._database.write(lambda c: c.execute(sa.insert(verdict).values(row | dict(change))))
    with pytest.raises(Unavailable, match=r"verdict newer: expected .*, found .*; .*upgrade"):
        upgraded.verdict("newer")


def test_versions_of_the_old_schema_are_still_the_same_versions() -> None:
    for number, request in old_requests().items():
        known = REGISTRY["mv"][number]
        now = ModelVersion(name=MODEL, version=number, created_ms=known["created"], source=known["source"])
        assert now.identity == request.version.identity == GIVEN[request.key]["subject"]
