"""A comparison that was stopped and goes on is the one that never stopped, bit for bit."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.measurements.retention import Retention, measure_retention

GRADES = st.sampled_from([0.0, 1 / 3, 0.5, 1.0])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """The base's and the candidate's outcomes of the same items: right or wrong, or by degrees."""
    of = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), GRADES]))
    both = draw(st.lists(st.tuples(of, of), min_size=2, max_size=90))
    return [pair[0] for pair in both], [pair[1] for pair in both]


def compared(both: tuple[list[float], list[float]], batch: int, **changes: object) -> Retention:
    base, own = both
    stated: dict[str, object] = {"capability": "c", "margin": 0.1, "alpha": 0.05, "seed": 7, "batch": batch}
    return measure_retention(lambda items: np.array(own)[list(items)], base, **stated | changes)


@given(both=pairs(), batch=st.integers(1, 40), most=st.integers(1, 90), stop=st.booleans())
def test_going_on_after_a_stop_anywhere_changes_nothing(
    both: tuple[list[float], list[float]], batch: int, most: int, stop: bool
) -> None:
    whole = compared(both, batch, stop_when_decided=stop)
    first = compared(both, batch, stop_when_decided=stop, most=most)
    assert compared(both, batch, stop_when_decided=stop, known=first.outcomes) == whole


@given(both=pairs(), batch=st.integers(1, 40), steps=st.lists(st.integers(1, 30), max_size=5))
def test_asking_again_and_again_ends_where_asking_once_does(
    both: tuple[list[float], list[float]], batch: int, steps: list[int]
) -> None:
    found: tuple[float, ...] = ()
    for most in steps:
        found = compared(both, batch, known=found, most=most).outcomes
    assert compared(both, batch, known=found) == compared(both, batch)


@given(both=pairs(), batch=st.integers(1, 40), steps=st.lists(st.integers(1, 30), min_size=2, max_size=5))
def test_more_samples_never_widen_what_is_known(
    both: tuple[list[float], list[float]], batch: int, steps: list[int]
) -> None:
    each = [compared(both, batch, most=steps[0])]
    for most in steps[1:]:
        each.append(compared(both, batch, known=each[-1].outcomes, most=most))
    for before, after in pairwise(each):
        assert after.items[: len(before.items)] == before.items
        assert after.difference.lower is not None
        assert before.difference.lower is not None
        assert after.difference.lower >= before.difference.lower
        assert before.decision in (None, after.decision)


@given(both=pairs(), batch=st.integers(1, 40), most=st.integers(1, 90))
def test_no_more_is_compared_than_asked_for_but_to_fill_a_batch(
    both: tuple[list[float], list[float]], batch: int, most: int
) -> None:
    found = compared(both, batch, most=most, stop_when_decided=False)
    assert min(most, len(both[0])) <= len(found.outcomes) < most + batch
    assert len(found.outcomes) in (len(both[0]), -(-most // batch) * batch)


@given(both=pairs(), batch=st.integers(1, 40), most=st.integers(1, 30))
def test_known_outcomes_are_not_asked_for_again(both: tuple[list[float], list[float]], batch: int, most: int) -> None:
    base, own = both
    first = compared(both, batch, most=most, stop_when_decided=False)
    asked: list[int] = []

    def score(items: tuple[int, ...]) -> np.ndarray:
        asked.extend(items)
        return np.array(own)[list(items)]

    measure_retention(
        score,
        base,
        capability="c",
        margin=0.1,
        alpha=0.05,
        seed=7,
        batch=batch,
        stop_when_decided=False,
        known=first.outcomes,
    )
    assert sorted([*asked, *first.items]) == list(range(len(base)))
