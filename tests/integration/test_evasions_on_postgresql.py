"""The same ways around the gate, tried on a real MLflow server whose registry is on a real PostgreSQL."""

from collections.abc import Iterator

import pytest
from bypasses import BYPASSES, undone_and_told
from databases import Postgres
from evasions import ATTEMPTS, PREPARED, refused
from guarded_stand import GuardedStand, Target


@pytest.fixture(scope="module")
def stand(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStand]:
    made = GuardedStand(tmp_path_factory.mktemp("evaded"), database=postgres.empty_database())
    yield made
    made.close()


@pytest.fixture
def target(stand: GuardedStand) -> Iterator[Target]:
    """A target of the test's own; afterwards the registry is empty again but for the protected models."""
    stand.clear()
    yield stand.target()
    stand.clear()


@pytest.fixture(scope="module")
def lasting(stand: GuardedStand) -> Target:
    """One target for all attempts that leave nothing behind."""
    return stand.target()


def test_the_registry_is_on_postgresql(stand: GuardedStand) -> None:
    assert stand.unguarded.engine.dialect.name == "postgresql"


def test_an_approved_version_takes_its_stage_and_the_one_before_is_archived(
    stand: GuardedStand, target: Target
) -> None:
    stand.approve(target.bad)
    for number in ("1", "2"):
        stand.client.transition_model_version_stage(target.name, number, "Production", archive_existing_versions=True)

    assert stand.leads(target.name)["stage Production"] == "2"
    assert stand.leads(target.name)["stage Archived"] == "1"


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


@pytest.mark.parametrize("name", BYPASSES)
def test_a_promotion_past_the_guard_is_undone_and_told_within_a_minute(
    stand: GuardedStand, target: Target, name: str
) -> None:
    undone_and_told(stand, target, name)
