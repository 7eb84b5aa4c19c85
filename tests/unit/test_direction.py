"""A direction between random ones and the worst, where both are known on paper."""

import math

import numpy as np
import pytest

from tasks.measurements.direction import loss_increase, share_of_worst, standing
from tasks.measurements.perturbation import normals


def test_in_a_bowl_a_steep_axis_stands_out_by_its_curvature() -> None:
    """L = ½ Σ cᵢ xᵢ² on the unit sphere: variance over directions (Σc² − (Σc)²/d) / (2d(d + 2)), d = 1000."""
    curvature = np.repeat([1.0, 9.0], 500)

    def increase(x: np.ndarray) -> float:
        return float(curvature @ np.square(x / np.linalg.norm(x))) / 2

    random = [increase(normals(0, "direction", draw, [1000]).numpy()) for draw in range(400)]
    steep = increase(np.eye(1000)[999])
    found = standing(steep, random, 0.05)
    truth = (4.5 - 2.5) / math.sqrt((41_000 - 25_000) / (2 * 1000 * 1002))
    assert found.lower <= truth <= found.upper
    assert found.value == pytest.approx(truth, rel=0.1)
    assert share_of_worst(steep, 4.5).value == 1.0
    assert share_of_worst(increase(np.ones(1000)), 4.5).value == pytest.approx(2.5 / 4.5)


def test_the_interval_of_the_standing_covers_the_truth() -> None:
    numbers, missed, repeats = np.random.default_rng(0), 0, 1000
    for _ in range(repeats):
        found = standing(3.0, numbers.normal(1.0, 0.5, size=4), 0.1)
        missed += not found.lower <= 4.0 <= found.upper
    assert missed / repeats <= 0.1


def test_a_direction_that_is_like_the_random_ones_stands_at_nothing() -> None:
    found = standing(0.5, [0.4, 0.6, 0.45, 0.55], 0.05)
    assert found.lower < 0 < found.upper
    assert found.value == pytest.approx(0.0, abs=1e-9)


def test_the_standing_does_not_depend_on_the_unit_of_the_loss() -> None:
    once, scaled = standing(0.9, [0.1, 0.2, 0.4], 0.05), standing(9.0, [1.0, 2.0, 4.0], 0.05)
    assert (scaled.value, scaled.lower, scaled.upper) == pytest.approx((once.value, once.lower, once.upper))


@pytest.mark.parametrize("random", [[0.1], [0.0, 0.0, 0.0], [0.1, math.nan], [0.1, math.inf]])
def test_random_directions_that_do_not_differ_or_are_no_number_are_no_yardstick(random: list[float]) -> None:
    assert standing(1.0, random, 0.05) is None


def test_the_share_is_of_the_worst_known_the_update_itself_included() -> None:
    assert share_of_worst(2.0, 1.0).value == 1.0
    found = share_of_worst(-0.5, 1.0)
    assert (found.lower, found.value, found.upper) == (-0.5, -0.5, 0.0)
    assert share_of_worst(-0.5, 0.0) is None
    assert share_of_worst(math.nan, 1.0) is None


def test_a_loss_is_compared_item_by_item() -> None:
    base = np.linspace(1, 9, 20)
    found = loss_increase(base + 0.25, base, 0.05)
    assert (found.lower, found.value, found.upper) == pytest.approx((0.25, 0.25, 0.25))
