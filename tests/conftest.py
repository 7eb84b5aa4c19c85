"""Fixtures shared by the whole tree."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import MARIADB, MariaDb, Postgres, sqlite_file
from hypothesis import settings
from mlflow_server import MlflowServer
from process_tree import processes_of

if TYPE_CHECKING:
    from whole_product import Product

# A loaded machine is no failure: what is tested are laws, not how long an example takes.
settings.register_profile("gate", deadline=None)
settings.load_profile("gate")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One real MLflow server for the session: SQLite, one worker, webhooks to loopback allowed. Tests share it, so
    each uses registered models of its own."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Product]":
    """The whole product, once for the session, with the staged base onboarded. Tests share it as `mlflow_server`."""
    from whole_product import Product

    running = Product(tmp_path_factory.mktemp("product"))
    try:
        running.onboard()
        yield running
    finally:
        running.close()
    assert processes_of(running.stack.state) == {}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One real PostgreSQL server for the session; each test asks it for a schema of its own."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """One real MariaDB server for the session, where `make test` could get it; each test asks it for a database."""
    if not (MARIADB / "sbin" / "mariadbd").is_file():
        pytest.skip(
            "MariaDB is not here; get it with: tests/tools/unpack_debian.sh .venv/mariadb mariadb-server-core libaio1 "
            "liburing2 libnuma1"
        )
    server = MariaDb()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return sqlite_file(tmp_path)
    return str(request.getfixturevalue("postgres").empty_database())
