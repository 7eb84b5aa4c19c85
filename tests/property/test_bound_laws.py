"""Laws of divergence and of the lower bounds that hold for every pair of models."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.measurements.agreement import agrees
from tasks.measurements.certificate import isotropic_certificate
from tasks.measurements.confidence import Interval
from tasks.measurements.divergence import outline, position_divergences
from tasks.measurements.overlap import overlap_bound

guesses = hnp.arrays(np.float32, (4, 9), elements=st.floats(-20, 20, width=32))


@given(guesses, guesses, st.integers(1, 9))
def test_a_divergence_is_never_negative_and_never_more_for_fewer_tokens(
    base: np.ndarray, candidate: np.ndarray, kept: int
) -> None:
    ours, theirs = torch.from_numpy(base), torch.from_numpy(candidate)
    whole, merged = (position_divergences(outline(ours, k), theirs) for k in (9, kept))
    assert all(0 <= m <= w + 1e-9 for m, w in zip(merged, whole, strict=True))
    assert position_divergences(outline(ours, kept), ours) == pytest.approx([0.0] * 4, abs=1e-12)


@given(guesses, guesses)
def test_the_divergence_bounds_the_total_variation_by_pinsker(base: np.ndarray, candidate: np.ndarray) -> None:
    p, q = (torch.from_numpy(x).double().softmax(-1) for x in (base, candidate))
    apart = (p - q).abs().sum(-1) / 2
    found = position_divergences(outline(torch.from_numpy(base)), torch.from_numpy(candidate))
    assert all(float(a) <= math.sqrt(k / 2) + 1e-6 for a, k in zip(apart, found, strict=True))


@given(guesses)
def test_where_tokens_agree_they_are_the_argmax(logits: np.ndarray) -> None:
    table = torch.from_numpy(logits)
    first = table.argmax(dim=-1).tolist()
    other = [(token + 1) % 9 for token in first]
    assert not agrees(table, other)
    assert not agrees(table, [first[0], first[1], other[2], first[3]])


@given(st.lists(st.tuples(st.booleans(), st.floats(-50, 0), st.floats(-50, 0)), min_size=1, max_size=20))
def test_an_overlap_never_exceeds_the_share_of_right_answers(answers: list[tuple[bool, float, float]]) -> None:
    right, base, candidate = (list(column) for column in zip(*answers, strict=True))
    found = overlap_bound(right, base, candidate, 0.05)
    assert 0 <= found.lower <= found.value <= sum(right) / len(right) + 1e-12
    assert overlap_bound(right, base, [q - 1 for q in candidate], 0.05).value <= found.value + 1e-12


@given(st.floats(0.001, 1), st.floats(0, 1), st.floats(0, 3), st.floats(0, 3))
def test_a_certificate_falls_with_distance_and_starts_at_the_noisy_score(
    sigma: float, lower: float, near: float, further: float
) -> None:
    noisy = [(sigma, Interval(1.0, lower, 1.0, 0.01, 6, "given"))]
    here, there = (isotropic_certificate(noisy, norm) for norm in (near, near + further))
    assert there.score.value <= here.score.value
    assert here.vacuous <= there.vacuous
    assert here.vacuous == (near > here.radius.value)
    assert isotropic_certificate(noisy, 0.0).score.value == pytest.approx(lower, abs=1e-9)
