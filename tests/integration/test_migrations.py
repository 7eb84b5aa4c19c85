"""The migrations make exactly the tables that the code uses, on both databases, also when run all at once."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from builders import a_verdict, a_version, an_evidence

from gate.adapters import migrations
from gate.adapters.database import Database
from gate.adapters.ledger_tables import metadata
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.evaluation import EvaluationRequest
from gate.domain.reopening import Against
from gate.domain.verdict import Review, ReviewDecision

MIGRATIONS = Path(migrations.__path__[0])


def differences(url: str) -> list[object]:
    database = Database(url)
    try:
        return database.read(lambda c: list(compare_metadata(MigrationContext.configure(c), metadata)))
    finally:
        database.close()


def test_an_empty_database_becomes_the_one_the_code_uses(database_url: str) -> None:
    assert differences(database_url) != []
    migrate(database_url)
    assert differences(database_url) == []


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    migrate(database_url)
    migrate(database_url)
    assert differences(database_url) == []


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    code = "import sys; from gate.adapters.sql_ledger import migrate; migrate(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", code, database_url]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert differences(database_url) == []


def test_sqlite_keeps_what_it_confirmed_through_a_power_cut(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    journal, synchronous = database.read(
        lambda c: [c.execute(sa.text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")]
    )
    assert (journal, synchronous) == ("wal", 2)
    database.close()


def test_a_new_sqlite_file_may_be_opened_while_another_process_writes_its_first_table(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    writer = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("CREATE TABLE first (x)")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(file, timeout=30).execute("PRAGMA journal_mode=wal")
    finish = threading.Timer(0.2, writer.commit)
    finish.start()
    database = Database(f"sqlite:///{file}")
    found = database.read(lambda c: c.execute(sa.text("SELECT count(*) FROM first")).scalar_one())
    database.close()
    finish.join()
    writer.close()
    assert found == 0


def migrate_to(database: Database, revision: str) -> None:
    """Brings an empty database to an earlier version of the schema."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def upgrade(c: sa.Connection) -> None:
        config.attributes["connection"] = c
        command.upgrade(config, revision)

    database.write(upgrade)


def test_verdicts_from_before_a_migration_are_found_by_their_base_and_worst_change(database_url: str) -> None:
    database = Database(database_url)
    migrate_to(database, "0004")

    def before(c: sa.Connection) -> None:
        row = {"key": "k", "name": "n", "request": "{}", "created_at": 1.0, "updated_at": 1.0}
        c.execute(sa.text("INSERT INTO evaluation (key, name, request, created_at, updated_at) VALUES (:key, :name, :request, :created_at, :updated_at)"), row)  # fmt: skip
        body = a_verdict().model_dump_json()
        c.execute(
            sa.text("INSERT INTO verdict (key, body, envelope, saved_at) VALUES ('k', :body, '{}', 1)"), {"body": body}
        )

    database.write(before)
    migrate(database_url)
    row = database.read(lambda c: c.execute(sa.text("SELECT base_digest, worst_change FROM evaluation")).one())
    database.close()
    assert tuple(row) == ("b" * 64, -0.98)
    assert differences(database_url) == []


def test_an_evaluation_from_before_verdicts_were_opened_again_is_compared_with_its_base(database_url: str) -> None:
    database, evidence = Database(database_url), an_evidence()
    request = EvaluationRequest.of(a_version(), "default", "d" * 64)
    migrate_to(database, "0015")

    def before(c: sa.Connection) -> None:
        row = {"key": request.key, "request": request.model_dump_json(), "evidence": evidence.key, "base": "b" * 64}
        c.execute(
            sa.text(
                "INSERT INTO evaluation (key, name, request, evidence_key, base_digest, created_at, updated_at) "
                "VALUES (:key, 'my-llm', :request, :evidence, :base, 1, 1)"
            ),
            row,
        )
        kept = {"key": evidence.key, "body": evidence.model_dump_json()}
        c.execute(
            sa.text("INSERT INTO evidence (key, body, saved_by, saved_at) VALUES (:key, :body, 'measure', 1)"), kept
        )

    database.write(before)
    migrate(database_url)
    database.close()
    ledger = SqlLedger(database_url)
    found = ledger.kept([request.key])[request.key].against
    ledger.close()
    assert found == Against(evidence.base_name or "", "b" * 64, evidence.suite_digest)
    assert evidence.suite_digest is not None


def test_a_review_from_before_reviews_were_of_verdicts_still_decides(database_url: str) -> None:
    database, judged = Database(database_url), a_verdict()
    request = EvaluationRequest.of(a_version(), judged.policy, judged.policy_digest)
    made = Review(
        decision=ReviewDecision.REJECT, reviewer="ana", reason="why", decided_at=5, verdict_digest=judged.digest
    )
    reviewed = judged.model_copy(update={"review": made})
    migrate_to(database, "0013")

    def before(c: sa.Connection) -> None:
        rows = {"key": request.key, "body": judged.model_dump_json(), "review": made.model_dump_json()}
        c.execute(
            sa.text("INSERT INTO verdict (key, body, envelope, saved_at) VALUES (:key, :body, '{\"n\": 1}', 1)"), rows
        )
        c.execute(
            sa.text("INSERT INTO review VALUES (:key, :review, 2, :verdict, 1, '{\"n\": 2}', 3)"),
            rows | {"verdict": reviewed.model_dump_json()},
        )

    database.write(before)
    database.close()
    migrate(database_url)
    ledger = SqlLedger(database_url)
    assert ledger.verdict(request.key) == (reviewed, {"n": 2})
    assert ledger.review(request.key, judged.digest) == made
    ledger.close()
    assert differences(database_url) == []
