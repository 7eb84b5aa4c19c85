"""Basin, retention, control and headroom on models whose answers are known on paper."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from tasks.measurements.basin import NoiseGrid, basin_sigma, curve_point, noise_curves, noise_items
from tasks.measurements.confidence import Interval, least_error
from tasks.measurements.crossing import CurvePoint, crossing
from tasks.measurements.headroom import headroom, line_curves
from tasks.measurements.perturbation import normals
from tasks.measurements.retention import Retention, item_order, measure_retention, random_controls

SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6)


class HalfSpaces:
    """Item i is answered as long as wᵢ·(θ − θ₀) ≥ −b, wᵢ of length one: under N(0, σ²) noise with chance Φ(b/σ)."""

    def __init__(self, items: int = 200, size: int = 300, b: float = 1.0) -> None:
        w = normals(0, "w", 0, [items, size])
        self.w, self.b, self.theta, self.scored = w / w.norm(dim=1, keepdim=True), b, torch.zeros(size), 0

    def perturb(self, sigma: float, draw: int) -> None:
        self.theta = sigma * normals(1, "theta", draw, [self.theta.numel()])

    def score(self, items: list[int]) -> np.ndarray:
        self.scored += len(items)
        return (self.w[list(items)] @ self.theta >= -self.b).double().numpy()


def basin_of(model: HalfSpaces, tolerance: float, draws: int = 8) -> Interval:
    items = range(model.w.shape[0])
    grid = NoiseGrid(SCALES, draws, {"c": items}, {"c": np.ones(len(items))}, {"c": 0.05})
    curves = noise_curves(grid, model.perturb, {"c": model.score})
    return basin_sigma(curves["c"], 1.0, tolerance)


@pytest.mark.parametrize("tolerance", [0.05, 0.1, 0.2])
def test_the_basins_edge_is_where_normal_tails_say(tolerance: float) -> None:
    found = basin_of(HalfSpaces(), tolerance)
    edge = 1.0 / stats.norm.ppf(1 - tolerance)
    assert found.lower <= edge <= found.upper
    assert found.value == pytest.approx(edge, rel=0.15)


def test_a_basin_twice_as_wide_has_twice_the_sigma() -> None:
    narrow, wide = basin_of(HalfSpaces(b=0.5), 0.1), basin_of(HalfSpaces(b=1.0), 0.1)
    assert wide.value == pytest.approx(2 * narrow.value, rel=0.15)


def test_a_basin_beyond_the_grid_has_no_upper_bound() -> None:
    found = basin_of(HalfSpaces(b=50.0), 0.1)
    assert (found.value, found.lower, found.upper) == (1.6, 1.6, None)


def test_a_base_that_cannot_lose_the_tolerance_has_no_basin() -> None:
    point = curve_point(0.1, [np.zeros(20), np.zeros(20)], np.zeros(20), 0.05)
    assert basin_sigma([point], 0.08, 0.1) is None
    assert basin_sigma([], 1.0, 0.1) is None


def test_a_capability_that_is_gone_is_not_scored_further() -> None:
    model = HalfSpaces(items=50, b=1.0)
    tiny = HalfSpaces(items=50, b=-2.0)
    tiny.perturb = model.perturb
    items = range(50)
    grid = NoiseGrid(
        SCALES,
        3,
        {"kept": items, "gone": items},
        {"kept": np.ones(50), "gone": np.ones(50)},
        {"kept": 0.05, "gone": 0.05},
    )
    score = {"kept": model.score, "gone": lambda chosen: np.zeros(len(chosen))}
    curves = noise_curves(grid, model.perturb, score)
    assert len(curves["kept"]) == len(SCALES)
    assert [p.at for p in curves["gone"]] == [0.2, 0.4]
    assert basin_sigma(curves["gone"], 1.0, 0.1).upper == 0.2


def test_the_interval_over_draws_covers_the_expected_score() -> None:
    items, missed = 40, 0
    for repeat in range(200):
        model, outcomes = HalfSpaces(items=items), []
        for draw in range(6):
            model.perturb(0.8, 10 * repeat + draw)
            outcomes.append(model.score(range(items)))
        point = curve_point(0.8, outcomes, np.ones(items), 0.1)
        missed += not point.score.lower <= stats.norm.cdf(1 / 0.8) <= point.score.upper
    assert missed / 200 <= 0.13


def test_draws_without_a_single_failure_still_leave_doubt() -> None:
    point = curve_point(0.1, [np.ones(24)] * 6, np.ones(24), 0.05)
    assert point.score.upper == 1.0
    assert 0.95 < point.score.lower < 0.99
    assert -0.05 < point.difference.lower < -0.01
    assert least_error(np.zeros((6, 24))) == pytest.approx(1 / 145)


def test_scores_that_are_not_all_or_nothing_are_compared_item_by_item() -> None:
    base = np.linspace(0.2, 0.9, 24)
    point = curve_point(0.1, [base - 0.01, base + 0.01, base, base], base, 0.05)
    assert point.difference.upper - point.difference.lower < 0.1
    assert point.score.upper - point.score.lower > 0.1


def test_curve_items_are_a_seeded_sample_in_item_order() -> None:
    order = item_order(100, 3, "math")
    assert noise_items(100, 10, order) == tuple(sorted(order[:10]))
    assert len(noise_items(5, 10, item_order(5, 3, "math"))) == 5


def point(at: float, value: float, reach: float = 0.01) -> CurvePoint:
    of = Interval(value, value - reach, value + reach, 0.05, 8, "given")
    return CurvePoint(at, of, of)


def test_a_crossing_is_interpolated_between_its_neighbours() -> None:
    found = crossing([point(1, 0.0), point(2, -0.05), point(3, -0.25)], 0.1)
    assert (found.value, found.lower, found.upper) == (2.25, 2, 3)


def test_a_curve_that_comes_back_is_left_at_the_first_crossing() -> None:
    found = crossing([point(1, 0.0), point(2, -0.3), point(3, 0.0), point(4, -0.3)], 0.1)
    assert found.value == pytest.approx(1 + 1 / 3)
    assert (found.lower, found.upper) == (1, 4)


def test_doubt_about_the_first_point_leaves_the_start_as_bound() -> None:
    assert crossing([point(1, -0.05, reach=0.2), point(2, 0.0)], 0.1).lower == 0.0


def test_positions_out_of_order_are_refused() -> None:
    for positions in ((2, 1), (1, 1), (0, 1), ()):
        with pytest.raises(ValueError, match="increasing order"):
            crossing([point(at, 0.0) for at in positions], 0.1)


class Line:
    """Item i of 200 is lost beyond t = i/100 + 1: the score falls by 0.5 per update length after the candidate."""

    def __init__(self) -> None:
        self.t, self.placed = 0.0, []

    def place(self, t: float) -> None:
        self.t = t
        self.placed.append(t)

    def score(self, items: list[int]) -> np.ndarray:
        return np.array([float(self.t <= 1 + i / 100) for i in items])


def test_headroom_is_where_the_line_leaves_the_margin() -> None:
    line = Line()
    curves = line_curves(
        line.place,
        {"c": line.score},
        {"c": range(200)},
        {"c": np.ones(200)},
        points=(1.1, 1.3, 1.5, 2.0),
        alpha={"c": 0.05},
    )
    found = headroom(curves["c"], 0.2)
    assert found.value == pytest.approx(0.4, abs=0.02)
    assert found.lower <= 0.4 <= found.upper
    assert line.placed == [1.0, 1.1, 1.3, 1.5, 2.0]


def test_a_candidate_that_is_lost_already_has_negative_headroom() -> None:
    curves = line_curves(
        lambda t: None,
        {"c": lambda items: np.zeros(len(items))},
        {"c": range(60)},
        {"c": np.ones(60)},
        points=(2.0,),
        alpha={"c": 0.05},
    )
    found = headroom(curves["c"], 0.1)
    assert (found.value, found.lower, found.upper) == (pytest.approx(-0.9), -1.0, 0.0)


def test_known_outcomes_of_the_candidate_are_not_measured_again() -> None:
    line = Line()
    line_curves(
        line.place,
        {"c": line.score},
        {"c": range(10)},
        {"c": np.ones(10)},
        points=(1.0, 2.0),
        alpha={"c": 0.05},
        known={"c": np.ones(10)},
    )
    assert line.placed == [2.0]


def test_equal_models_are_found_equal_before_the_items_run_out() -> None:
    base = np.random.default_rng(0).integers(0, 2, size=200).astype(float)
    seen: list[tuple[int, Interval]] = []
    found = measure_retention(
        lambda items: base[list(items)],
        base,
        capability="c",
        margin=0.1,
        alpha=0.01,
        seed=1,
        batch=16,
        progress=lambda used, by_now: seen.append((used, by_now)),
    )
    assert (found.decision, len(found.items), found.difference.value) == ("retained", 64, 0.0)
    assert [used for used, _ in seen] == [16, 32, 48, 64]
    assert seen[-1][1] == found.difference
    widths = [by_now.upper - by_now.lower for _, by_now in seen]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    assert found.difference.lower >= -0.1
    assert found.items == item_order(200, 1, "c")[:64]
    assert found.outcomes == tuple(base[list(found.items)])


def test_a_comparison_that_was_killed_and_begun_anew_is_the_one_it_would_have_been() -> None:
    base = np.random.default_rng(0).integers(0, 2, size=200).astype(float)
    own = np.where(np.arange(200) % 9 == 0, 0.0, base)

    def compare(survives: int) -> Retention:
        asked = iter(range(survives))

        def score(items: Sequence[int]) -> np.ndarray:
            next(asked)
            return own[list(items)]

        return measure_retention(score, base, capability="c", margin=0.1, alpha=0.01, seed=1, batch=16)

    whole = compare(13)
    for survives in range(3):
        with pytest.raises(StopIteration):
            compare(survives)
        assert compare(13) == whole
    assert len(whole.items) > 3 * 16


def test_a_lost_capability_is_found_in_the_first_batch() -> None:
    found = measure_retention(
        lambda items: np.zeros(len(items)), np.ones(100), capability="c", margin=0.1, alpha=0.01, seed=1
    )
    assert (found.decision, len(found.items), found.difference.value) == ("lost", 32, -1.0)
    assert found.score.upper < 0.3


def test_all_items_are_used_where_nothing_is_decided_or_stopping_is_off() -> None:
    half = measure_retention(
        lambda items: np.array([float(i % 8 > 0) for i in items]),
        np.ones(96),
        capability="c",
        margin=0.12,
        alpha=0.01,
        seed=1,
    )
    assert (half.decision, len(half.items)) == (None, 96)
    whole = measure_retention(
        lambda items: np.ones(len(items)),
        np.ones(96),
        capability="c",
        margin=0.1,
        alpha=0.05,
        seed=1,
        stop_when_decided=False,
    )
    assert (whole.decision, len(whole.items)) == ("retained", 96)


def test_graded_scores_are_decided_at_a_small_margin_within_64_items() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(30, 60, size=120) / 80
    shift = rng.integers(-2, 3, size=120) / 80
    found = measure_retention(
        lambda items: (base + shift)[list(items)], base, capability="c", margin=0.05, alpha=0.01, seed=1
    )
    assert (found.decision, len(found.items)) == ("retained", 64)
    assert found.difference.method == "asymptotic sequence"
    worse = measure_retention(
        lambda items: (base - 0.15)[list(items)], base, capability="c", margin=0.05, alpha=0.01, seed=1
    )
    assert worse.decision == "lost"


def test_the_order_of_items_depends_on_seed_and_capability() -> None:
    orders = {item_order(50, 1, "math"), item_order(50, 2, "math"), item_order(50, 1, "code")}
    assert len(orders) == 3
    assert item_order(50, 1, "math") in orders


def test_the_random_control_has_the_draw_as_its_unit_and_places_it_once() -> None:
    placed: list[int] = []
    score = {"a": lambda items: np.ones(len(items)), "b": lambda items: np.zeros(len(items))}
    items = {"a": range(20), "b": range(30)}
    found = random_controls(
        placed.append, score, items, {"a": np.ones(40), "b": np.ones(40)}, draws=4, alpha={"a": 0.05, "b": 0.05}
    )
    assert placed == [0, 1, 2, 3]
    assert (found["a"].difference.value, found["a"].difference.n) == (0.0, 4)
    assert found["a"].difference.lower < 0 < found["a"].difference.upper
    assert found["b"].difference.upper < -0.9
    one = {"b": score["b"]}
    alone = random_controls(lambda draw: None, one, {"b": range(30)}, {"b": np.ones(40)}, draws=4, alpha={"b": 0.05})[
        "b"
    ]
    assert alone == found["b"]
