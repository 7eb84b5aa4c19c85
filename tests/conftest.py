"""Fixtures shared by the whole tree, and which tests share a process."""

import gc
import os
import re
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import MARIADB, MariaDb, Postgres, sqlite_file
from fine_tunes import FineTunes
from hypothesis import settings
from ledger_desk import Desk
from mlflow_server import MlflowServer
from process_tree import processes_of
from xdist.scheduler.loadfile import LoadFileScheduling

if TYPE_CHECKING:
    from whole_product import Product

ROOT = Path(__file__).parents[1]
PRODUCT = pytest.StashKey["Product"]()

# The gate gives a call to MLflow twenty seconds, unless told otherwise: a server of the tests may be held up for longer.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
# A loaded machine is no failure: what is tested are laws, not how long an example takes. Examples are the same in each
# run, so that what was green stays green until someone changes it; to look for new ones: --hypothesis-profile explore
settings.register_profile("gate", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("gate")


@cache
def uses_product(file: Path) -> bool:
    """Whether tests or fixtures of a file ask for the whole product."""
    return re.search(r"\ndef \w+\([^)]*\bproduct\b", file.read_text()) is not None


class OneProduct(LoadFileScheduling):
    """A file's tests stay in one process, and so do all that use the product: it is started and profiled once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "the product" if file.startswith("tests/") and uses_product(ROOT / file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneProduct:
    """How several processes share the tests."""
    return OneProduct(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the product comes first, taking longest; then what starts servers; last what fills the gaps."""
    folders = ("tests/browser", "tests/integration", "tests/contract", "tests/property")

    def place(item: pytest.Item) -> tuple[bool, int]:
        of_servers = next((n for n, folder in enumerate(folders) if item.nodeid.startswith(folder)), len(folders))
        return not ("tests/" in item.nodeid and uses_product(item.path)), of_servers

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage neither while everything is imported, nor later among all that was: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the product after the last test that uses it: idle, it would still look through MLflow every few seconds."""
    running = item.config.stash.get(PRODUCT, None)
    if running is not None and (nextitem is None or not uses_product(nextitem.path)):
        running.close()


@pytest.fixture(scope="session")
def fine_tune(tmp_path_factory: pytest.TempPathFactory) -> FineTunes:
    """Real fine-tunes of the shipped base by recipe, made when first asked for, once for all processes."""
    own = tmp_path_factory.getbasetemp()
    return FineTunes((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "fine-tunes")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One real MLflow server for the session: SQLite, one worker, webhooks to loopback allowed. Tests share it, so
    each uses registered models of its own."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> "Iterator[Product]":
    """The whole product, once for the session, with the staged base onboarded. Tests share it as `mlflow_server`."""
    from whole_product import Product

    running = pytestconfig.stash[PRODUCT] = Product(tmp_path_factory.mktemp("product"))
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


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    """An empty ledger, once on each database."""
    made = Desk.at(database_url)
    yield made
    made.ledger.close()
