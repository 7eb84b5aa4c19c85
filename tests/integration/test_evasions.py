"""Every known way around the gate, tried on a real MLflow server on SQLite: refused with a reason, or seen, undone and
told. None may succeed in silence."""

from collections.abc import Iterator

import pytest
from bypasses import BYPASSES, undone_and_told
from evasions import ATTEMPTS, PREPARED, refused
from guarded_stand import GuardedStand, Target


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStand]:
    made = GuardedStand(tmp_path_factory.mktemp("evaded"))
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


def test_there_are_enough_attempts_on_each_side_of_the_guard() -> None:
    assert len(ATTEMPTS) + len(PREPARED) >= 40
    assert len(BYPASSES) >= 15
