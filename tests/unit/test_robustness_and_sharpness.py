"""Average-case robustness and critical sharpness where their answers are known on paper."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.measurements.perturbation import Moved, Snapshot
from tasks.measurements.robustness import AdaptiveNoise, area_change, areas, mean_area
from tasks.measurements.sharpness import FIRST, FURTHEST, critical_sharpness


def weights(**tensors: Tensor) -> Snapshot:
    return Snapshot(tensors)


def test_noise_has_each_tensors_own_size_and_is_keyed_by_seed_and_draw() -> None:
    source = weights(small=torch.full((400, 100), 0.01), large=torch.full((300, 100), 5.0), zero=torch.zeros(40))
    noise = AdaptiveNoise(source, source.names(), 1, 0)
    for name in ("small", "large"):
        rms = float(source.tensor(name).square().mean().sqrt())
        assert float(noise.delta(name).square().mean().sqrt()) == pytest.approx(rms, rel=0.02)
    assert not noise.delta("zero").any()
    again, other = AdaptiveNoise(source, source.names(), 1, 0), AdaptiveNoise(source, source.names(), 1, 1)
    assert torch.equal(noise.delta("small"), again.delta("small"))
    assert not torch.equal(noise.delta("small"), other.delta("small"))


def test_a_rescaling_that_cancels_leaves_the_robustness_as_it_was() -> None:
    up, down = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), torch.randn(4, 32)
    inputs = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))

    def area(scale: float) -> list[float]:
        source = weights(up=up * scale, down=down / scale)
        right = (down @ (up @ inputs.T)).argmax(0)
        held: dict[str, Tensor] = {}

        def place(strength: float, draw: int) -> None:
            moved = Moved(source, AdaptiveNoise(source, source.names(), 3, draw), strength)
            held.update({name: moved.tensor(name) for name in source.names()})

        def score(items: list[int]) -> np.ndarray:
            answers = (held["down"] @ (held["up"] @ inputs.T)).argmax(0)
            return (answers == right).double().numpy()[list(items)]

        return areas(place, {"c": score}, {"c": range(200)}, (0.1, 0.3), 3)["c"]

    plain = area(1.0)
    assert plain == area(64.0)
    assert 0.5 < plain[0] < 1.0


def test_an_area_is_the_mean_score_from_no_noise_to_the_largest_strength() -> None:
    now = {"at": 0.0}
    found = areas(
        lambda strength, draw: now.update(at=strength + draw / 100),
        {"c": lambda items: np.full(len(items), 1.0 - now["at"])},
        {"c": range(5)},
        (0.8, 0.4),
        2,
    )
    assert found["c"] == pytest.approx([0.6, 0.6 - 0.01 * 0.75])


def test_an_area_lies_in_the_scores_range_and_a_change_is_paired() -> None:
    bounded = mean_area([0.98, 1.0], 0.05)
    assert (bounded.lower, bounded.upper) == (pytest.approx(max(0.0, bounded.lower or 0.0)), 1.0)
    base = [0.2, 0.9, 0.5]
    change = area_change([b - 0.1 for b in base], base, 0.05)
    assert (change.value, change.lower, change.upper) == pytest.approx((-0.1, -0.1, -0.1))


@pytest.mark.parametrize("further", [0.05, 0.3, 0.5, 1.2])
def test_a_bowl_whose_bottom_is_further_on_has_the_sharpness_of_its_distance(further: float) -> None:
    found = critical_sharpness(lambda eta: (eta - further) ** 2, 8)
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower <= 1 / further <= found.upper
    assert found.value == pytest.approx(1 / further, rel=0.1)


@pytest.mark.parametrize("loss", [lambda eta: (eta + 1.0) ** 2, lambda eta: math.nan if eta else 0.0])
def test_where_the_first_step_costs_there_is_no_upper_bound(loss) -> None:
    found = critical_sharpness(loss, 8)
    assert (found.value, found.lower, found.upper) == (2 / FIRST, 2 / FIRST, None)


def test_where_no_step_costs_there_is_no_lower_bound() -> None:
    looked: list[float] = []

    def loss(eta: float) -> float:
        looked.append(eta)
        return -eta

    found = critical_sharpness(loss, 8)
    assert (found.value, found.lower, found.upper) == (2 / FURTHEST, None, 2 / FURTHEST)
    assert max(looked) == FURTHEST
    assert len(looked) <= 10


def test_few_looks_are_enough() -> None:
    looked: list[float] = []

    def loss(eta: float) -> float:
        looked.append(eta)
        return (eta - 1.5) ** 2

    critical_sharpness(loss, 8)
    assert len(looked) <= 11
