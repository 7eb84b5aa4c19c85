"""The migrations make exactly the tables that the code uses, on both databases, also when run all at once."""

import subprocess
import sys

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gate.adapters.database import Database
from gate.adapters.ledger_tables import metadata
from gate.adapters.sql_ledger import migrate


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


def test_sqlite_keeps_what_it_confirmed_through_a_power_cut(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    journal, synchronous = database.read(
        lambda c: [c.execute(sa.text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")]
    )
    assert (journal, synchronous) == ("wal", 2)
    database.close()
