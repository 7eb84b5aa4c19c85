"""The same ways around the gate, sent to a real MLflow server whose registry is on a real MariaDB, which takes one
spelling for another as MySQL does."""

from collections.abc import Iterator

import pytest
from databases import MariaDb
from evasions import ATTEMPTS, PREPARED, refused
from guarded_stand import GuardedStand, Target


@pytest.fixture(scope="module")
def stand(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStand]:
    made = GuardedStand(tmp_path_factory.mktemp("evaded"), database=mariadb.empty_database("utf8mb4_uca1400_ai_ci"))
    yield made
    made.close()


@pytest.fixture
def target(stand: GuardedStand) -> Target:
    """A target of the test's own in a registry that is empty but for the protected models."""
    stand.clear()
    return stand.target()


@pytest.fixture(scope="module")
def lasting(stand: GuardedStand) -> Target:
    """One target for all attempts that leave nothing behind."""
    return stand.target()


def test_the_registry_is_on_mariadb_and_takes_spellings_for_one_another(stand: GuardedStand) -> None:
    assert (stand.unguarded.engine.dialect.name, stand.unguarded.engine.driver) == ("mysql", "pymysql")
    assert stand.unguarded.get_registered_model("PRÖD.llm").name == "prod.llm"


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_through_the_server_is_refused_with_the_reason_and_changes_nothing(
    stand: GuardedStand, lasting: Target, name: str
) -> None:
    refused(stand, lasting, name, ATTEMPTS[name])


@pytest.mark.parametrize("name", PREPARED)
def test_an_attempt_with_preparations_is_refused_with_the_reason_and_promotes_nothing(
    stand: GuardedStand, target: Target, name: str
) -> None:
    refused(stand, target, name, PREPARED[name])
