"""Laws of the measurements that hold for every input."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.measurements.confidence import Interval, MeanSequence, PairedSequence, betting_interval, clopper_pearson
from tasks.measurements.crossing import CurvePoint, crossing
from tasks.measurements.displacement import Displacement, DisplacementTally
from tasks.measurements.lora import low_rank_dot, low_rank_norm_squared
from tasks.measurements.perturbation import normals

# 0.1, 0.2 … and small integers: values at which float32 differences neither overflow nor vanish.
weights = st.floats(-100, 100, width=32).map(lambda x: 0.0 if abs(x) < 1e-3 else x)
pairs = hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(1, 40)), elements=weights)
units = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def tally(base: torch.Tensor, candidate: torch.Tensor, cuts: list[int], gradient: torch.Tensor) -> Displacement:
    found = DisplacementTally(["c"])
    edges = [0, *sorted(min(c, len(base)) for c in cuts), len(base)]
    for start, end in pairwise(edges):
        found.add("w", base[start:end], candidate[start:end], {"c": gradient[start:end]})
    return found.result()


@given(pairs, st.lists(st.integers(0, 40), max_size=5))
def test_displacement_does_not_depend_on_the_chunks(both: np.ndarray, cuts: list[int]) -> None:
    base, candidate = torch.from_numpy(both)
    gradient = torch.arange(len(base), dtype=torch.float32) - 3
    whole, cut = tally(base, candidate, [], gradient), tally(base, candidate, cuts, gradient)
    delta = both[1].astype(np.float64) - both[0].astype(np.float64)
    assert whole.norm == pytest.approx(np.linalg.norm(delta), rel=1e-5, abs=1e-4)
    assert cut.norm == pytest.approx(whole.norm, rel=1e-12)
    assert cut.changed_fraction == whole.changed_fraction == np.mean(both[0] != both[1])
    assert cut.alignment["c"].z == pytest.approx(whole.alignment["c"].z, rel=1e-9, abs=1e-9)
    assert cut.parameters == len(base)


@given(pairs)
def test_displacement_is_symmetric_and_its_cosine_a_cosine(both: np.ndarray) -> None:
    base, candidate = torch.from_numpy(both)
    there, back = tally(base, candidate, [], candidate), tally(candidate, base, [], candidate)
    assert there.norm == back.norm
    assert -1 - 1e-9 <= there.alignment["c"].cosine <= 1 + 1e-9
    assert there.alignment["c"].cosine == -back.alignment["c"].cosine
    assert there.rms * math.sqrt(there.parameters) == pytest.approx(there.norm)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.floats(-4, 4), st.integers(0, 99))
def test_low_rank_sums_are_those_of_the_product(rows: int, columns: int, rank: int, scale: float, seed: int) -> None:
    A, B = normals(seed, "A", 0, [rank, columns]), normals(seed, "B", 0, [rows, rank])
    gradient = normals(seed, "G", 0, [rows, columns])
    product = scale * (B.double() @ A.double())
    assert low_rank_norm_squared(A, B, scale) == pytest.approx(float(product.square().sum()), rel=1e-6, abs=1e-9)
    assert low_rank_dot(A, B, scale, gradient) == pytest.approx(float((product * gradient).sum()), rel=1e-6, abs=1e-6)


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.001, 0.4))
def test_clopper_pearson_holds_its_proportion_and_mirrors(k: int, more: int, alpha: float) -> None:
    n = k + more
    found, mirrored = clopper_pearson(k, n, alpha), clopper_pearson(more, n, alpha)
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    assert found.lower == pytest.approx(1 - mirrored.upper)


@given(units, st.floats(0.005, 0.3))
@settings(deadline=None)
def test_betting_holds_its_mean_and_mirrors(xs: list[float], alpha: float) -> None:
    found, mirrored = betting_interval(xs, alpha), betting_interval([1 - x for x in xs], alpha)
    assert found.lower <= found.value <= found.upper
    # One grid step may differ where a stake meets its threshold to the last bit.
    assert found.lower == pytest.approx(1 - mirrored.upper, abs=0.0011)


@given(units, units)
@settings(deadline=None)
def test_a_sequence_only_ever_shrinks(first: list[float], then: list[float]) -> None:
    sequence = MeanSequence(0.1)
    sequence.feed(first)
    before = sequence.interval()
    sequence.feed(then)
    after = sequence.interval()
    assert after.lower >= before.lower or after.lower == after.value
    assert after.upper <= before.upper or after.upper == after.value
    assert after.lower <= after.value <= after.upper


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=40), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_what_is_retained_at_a_margin_is_retained_at_a_larger_one(differences: list[float], margin: float) -> None:
    paired = PairedSequence(0.2)
    paired.feed(differences)
    if paired.decided(margin) == "retained":
        assert paired.decided(2 * margin) == "retained"
    if paired.decided(margin) == "lost":
        assert paired.decided(margin / 2) == "lost"


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0.01, 1)
)
def test_a_crossing_lies_within_its_bounds(values: list[tuple[float, float, float]], margin: float) -> None:
    differences = [Interval(v, v - down, v + up, 0.05, 4, "given") for v, down, up in values]
    points = [CurvePoint(at, d, d) for at, d in enumerate(differences, 1)]
    found = crossing(points, margin)
    assert 0 <= found.lower <= found.value <= len(points)
    assert found.upper is None or found.upper >= found.value


@given(st.integers(0, 2**60), st.text(max_size=8), st.integers(0, 1000), st.integers(1, 50))
def test_noise_is_a_function_of_its_key(seed: int, name: str, draw: int, size: int) -> None:
    noise = normals(seed, name, draw, [size])
    assert torch.equal(noise, normals(seed, name, draw, [size, 1]).squeeze(1))
    assert not torch.equal(noise, normals(seed + 1, name, draw, [size]))
    assert not torch.equal(noise, normals(seed, name, draw + 1, [size]))
