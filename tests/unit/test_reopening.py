"""When a verdict is opened again under the policy it was given by."""

import pytest
from builders import a_checkpoint, a_version

from gate.domain.checkpoint import Base
from gate.domain.evaluation import EvaluationRequest, evaluation_key
from gate.domain.reopening import Against, occasion_for

OLD, NEW, SUITE, CHANGED = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
REQUEST = EvaluationRequest.of(a_version(), "default", "e" * 64)


def a_base(digest: str = OLD, suite: str | None = SUITE, name: str = "base") -> Base:
    return Base(name=name, digest=digest, source="x", suite="staged", checkpoint=a_checkpoint(), suite_digest=suite)


@pytest.mark.parametrize(
    ("against", "base"),
    [
        pytest.param(Against("base", OLD, SUITE), a_base(), id="the base is as it was"),
        pytest.param(Against("base", OLD, None), a_base(), id="the suite of then was not kept"),
        pytest.param(Against("base", OLD, SUITE), a_base(suite=None), id="the suite of now is not kept"),
    ],
)
def test_a_verdict_stays_closed(against: Against, base: Base) -> None:
    assert occasion_for(against, [a_base(NEW, CHANGED, "another"), base]) is None


@pytest.mark.parametrize(
    ("bases", "reason"),
    [
        pytest.param([a_base(NEW)], "its base base was onboarded anew with other files (sha256 bbbb", id="other files"),
        pytest.param(
            [a_base(suite=CHANGED)], "the suite of its base base was changed (sha256 dddd", id="another suite"
        ),
        pytest.param([a_base(name="another")], "its base base is no longer onboarded", id="no base of that name"),
    ],
)
def test_a_verdict_is_opened_again_with_the_reason(bases: list[Base], reason: str) -> None:
    occasion = occasion_for(Against("base", OLD, SUITE, 2), bases)

    assert occasion is not None
    assert occasion.reason.startswith(reason)
    assert occasion.number == 3


def test_asking_twice_for_the_same_occasion_is_asking_once() -> None:
    first = occasion_for(Against("base", OLD, SUITE), [a_base(NEW)])
    same = occasion_for(Against("base", OLD, SUITE), [a_base(NEW)])
    later = occasion_for(Against("base", NEW, SUITE, 1), [a_base(OLD)])
    assert first
    assert same
    assert later

    assert REQUEST.again(first) == REQUEST.again(same)
    keys = {REQUEST.key, REQUEST.again(first).key, REQUEST.again(later).key}
    assert len(keys) == 3
    assert {REQUEST.root, REQUEST.again(first).root} == {evaluation_key(REQUEST.version.identity, "e" * 64)}


def test_what_was_asked_for_and_onboarded_before_is_written_as_it_was() -> None:
    assert "occasion" not in REQUEST.model_dump()
    assert "suite_digest" not in a_base(suite=None).model_dump()
