"""One SQL database (SQLite or PostgreSQL): transactions that are safe between processes, and its migrations."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from gate.domain.errors import InvalidInput, Unavailable

T = TypeVar("T")

BUSY_S = 30
BUSY_PAUSE_S = 0.02
COLLISION_TRIES = 8
# PostgreSQL's serialization failure and deadlock: rolled back whole, so trying again is safe.
COLLISIONS = frozenset({"40001", "40P01"})
UNDEFINED_TABLE = "42P01"
MIGRATION_LOCK = 7_620_114


def ledger_url(database_url: str, state_dir: Path) -> str:
    """The ledger's address: the one given, else a SQLite file inside the state folder."""
    return database_url or f"sqlite:///{state_dir.resolve() / 'ledger.db'}"


def missing_file(url: str) -> Path | None:
    """The file of a SQLite ledger that is not there; merely asking SQLite about it would make it."""
    parsed = sa.make_url(url)
    file = Path(parsed.database) if parsed.drivername == "sqlite" and parsed.database else None
    return None if file is None or file.is_file() else file


class Database:
    """Runs a function of a connection in one transaction; a write is serialized (SQLite) or locks rows (PostgreSQL)."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._readers = self.engine.execution_options(gate_reads_only=True)
        if self.engine.dialect.name == "postgresql":
            # Otherwise each statement would see a snapshot of its own.
            self._readers = self._readers.execution_options(isolation_level="REPEATABLE READ")

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """What ``work`` returns, once committed; rolled back on any error; tried again after a deadlock."""
        for tries_left in reversed(range(COLLISION_TRIES)):
            try:
                with self.engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if tries_left and getattr(error.orig, "sqlstate", None) in COLLISIONS:
                    continue
                raise _translated(error) from error
        raise AssertionError("unreachable: the last try returns or raises")

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What ``work`` returns from one consistent snapshot; never waits for a writer on SQLite."""
        try:
            with self._readers.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            raise _translated(error) from error

    def migrate(self, revision: str = "head") -> None:
        """Brings the schema up to a revision, whole or not at all; safe to run from several processes at once.

        Raises `InvalidInput` where a newer program has brought it further than this one knows.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))

        def upgrade(connection: sa.Connection) -> None:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            _refuse_newer(connection, ScriptDirectory.from_config(config))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

        self.write(upgrade)

    def close(self) -> None:
        """Closes every pooled connection."""
        self.engine.dispose()


def _refuse_newer(connection: sa.Connection, known: ScriptDirectory) -> None:
    found, head = MigrationContext.configure(connection).get_current_revision(), known.get_current_head()
    if found is not None and found not in {script.revision for script in known.walk_revisions()}:
        raise InvalidInput(
            f"expected the ledger's schema at {head} or older, found {found}: a newer version of this program upgraded it; "
            "upgrade this one, or restore the database from before"
        )


def insert_new(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Inserts a row unless a unique index already has it; whether it was inserted."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(row).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key.columns)).first() is not None


def put(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Inserts a row, or replaces the one with its primary key."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    identity = [column.name for column in table.primary_key.columns]
    rest = {name: value for name, value in row.items() if name not in identity}
    statement = dialect.insert(table).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=identity, set_=rest))


def _engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.drivername == "sqlite":
        return _sqlite_engine(parsed)
    if parsed.drivername == "postgresql+psycopg":
        return sa.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    raise InvalidInput(
        f"ledger database: expected sqlite:///FILE or postgresql+psycopg://…, found {parsed.drivername}://…; "
        "set GATE_DATABASE_URL"
    )


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise InvalidInput("ledger database: expected a SQLite file, found an in-memory one that no worker could see")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S, "isolation_level": None})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    _write_ahead(connection)
    for pragma in ("synchronous=full", f"busy_timeout={BUSY_S * 1000}", "foreign_keys=on"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # SQLite refuses this switch at once while another process writes, whatever the busy timeout says.
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred transaction that turns writer half-way fails at once instead of waiting its turn.
    reads_only = connection.get_execution_options().get("gate_reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _translated(error: DBAPIError) -> Exception:
    unmigrated = getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE
    if not (unmigrated or error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))):
        return error
    return Unavailable(f"the ledger's database does not answer: {error.orig}; is it up, reachable and migrated?")
