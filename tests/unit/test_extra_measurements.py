"""What a plan may ask for beside: each measurement where its answer is known on paper."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from tasks.measurements.input_sensitivity import input_sensitivity
from tasks.measurements.merging import certified, drawn_mixture, merge_radius, mixture_scores
from tasks.measurements.perturbation import Snapshot
from tasks.measurements.spectrum import NOTHING, TOP, Energy, dense_energy, low_rank_energy, stable_rank, top_energy
from tasks.measurements.tamper import Attack, attacks, step_lengths, tamper_radius, tamper_ratio
from tasks.weights import block_of


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values: Sequence[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    left, right = (torch.linalg.qr(normal(seed + i, n, n).double()).Q for i, n in enumerate((rows, columns)))
    count = len(values)
    return left[:, :count] @ torch.diag(torch.tensor(values).double()) @ right[:, :count].T


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_an_update_along_equal_directions_has_as_many_as_its_stable_rank(rank: int) -> None:
    delta = with_singular_values([0.5] * rank, 60, 90)
    found = stable_rank([dense_energy(delta, 1, "w", 0.01)], 0.01)
    assert found is not None
    assert found.value == pytest.approx(rank, rel=1e-6)


def test_matrices_weigh_by_their_energy() -> None:
    energies = [Energy(9.0, 9.0, 9.0, 9.0, 9.0), NOTHING, Energy(4.0, 1.0, 1.0, 3.0, 3.5)]
    found, leading = stable_rank(energies, 0.05), top_energy(energies, 0.05)
    assert found is not None
    assert (found.value, found.lower, found.upper, found.alpha) == (1.3, 1.3, 1.3, 0.0)
    assert leading is not None
    assert (leading.value, leading.lower, leading.upper, leading.alpha) == (12 / 13, 12 / 13, 12.5 / 13, 0.05)


def test_an_update_of_nothing_has_no_stable_rank() -> None:
    assert stable_rank([dense_energy(torch.zeros(3, 4), 0, "w", 0.01)], 0.05) is None
    assert stable_rank([], 0.05) is None
    assert top_energy([dense_energy(torch.zeros(3, 4), 0, "w", 0.01)], 0.05) is None


def test_few_steps_find_no_more_than_there_is_and_miss_no_more_than_they_say() -> None:
    # The hardest spectrum: nothing stands out, so that few steps do miss some.
    values = [1.0 - 0.002 * i for i in range(150)]
    delta = with_singular_values(values, 150, 150).float()
    found = [dense_energy(delta, seed, "w", 0.05, steps=12) for seed in range(200)]
    assert all(energy.top <= 1.0 + 1e-5 for energy in found)
    assert min(energy.top for energy in found) < 0.9999
    assert sum(energy.top_at_most < 1.0 for energy in found) <= 0.05 * len(found)


def test_a_large_matrix_is_bounded_within_a_few_percent() -> None:
    delta = normal(3, 700, 900)
    exact = float(torch.linalg.svdvals(delta)[0]) ** 2
    found = dense_energy(delta, 0, "w", 0.001)
    assert found.total == pytest.approx(float(delta.double().square().sum()))
    assert found.top <= exact * (1 + 1e-5)
    assert exact <= found.top_at_most <= 1.05 * found.top


SPECTRA: Mapping[str, Sequence[float]] = {
    "nothing": [0.0],
    "one direction": [3.0],
    "low rank": [2.0, 1.5, 1.0],
    "clustered": [1.0 - 1e-4 * i for i in range(80)],
    "spread": [0.95**i for i in range(80)],
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA.keys())
def test_the_largest_singular_value_lies_within_its_bounds_by_numpys_decomposition(
    values: Sequence[float], turned: bool
) -> None:
    delta = with_singular_values(values, 80, 120)
    delta = delta.T if turned else delta
    exact = np.linalg.svd(delta.numpy(), compute_uv=False)
    found = dense_energy(delta, 5, "w", 0.001)
    assert found.total == pytest.approx(float((exact**2).sum()), rel=1e-9)
    assert found.top <= exact[0] ** 2 * (1 + 1e-9)
    assert found.top >= 0.999 * exact[0] ** 2
    assert exact[0] ** 2 <= found.top_at_most * (1 + 1e-9)
    leading = float((exact[:TOP] ** 2).sum())
    assert found.leading <= leading * (1 + 1e-9)
    assert leading <= found.leading_at_most * (1 + 1e-9)


def test_strong_directions_together_are_found_and_what_was_not_searched_is_said() -> None:
    low, spread = (
        dense_energy(with_singular_values(SPECTRA[kind], 80, 120), 5, "w", 0.001) for kind in ("low rank", "spread")
    )
    assert (low.leading, low.leading_at_most) == (pytest.approx(7.25), pytest.approx(7.25))
    true = sum(value**2 for value in SPECTRA["spread"][:TOP])
    assert spread.leading == pytest.approx(true, rel=1e-3)
    assert true < spread.leading_at_most < 0.9 * spread.total


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_random_matrix_and_of_random_factors_the_numbers_are_numpys(seed: int) -> None:
    dense, (A, B) = normal(seed, 90, 60).double(), (normal(seed, 5, 60), normal(seed + 9, 90, 5))
    for delta, found in ((dense, dense_energy(dense, seed, "w", 0.001)), (B @ A, low_rank_energy(A, B, 1.0))):
        exact = np.linalg.svd(delta.double().numpy(), compute_uv=False)
        assert found.total == pytest.approx(float((exact**2).sum()), rel=1e-5)
        assert found.top == pytest.approx(float(exact[0] ** 2), rel=1e-3)
        assert found.top_at_most >= exact[0] ** 2 * (1 - 1e-5)
        leading = float((exact[:TOP] ** 2).sum())
        assert found.leading * (1 - 1e-5) <= leading <= found.leading_at_most * (1 + 1e-5)


def test_of_factors_that_are_zero_there_is_no_energy() -> None:
    assert low_rank_energy(torch.zeros(4, 30), normal(2, 20, 4), 0.5) == NOTHING


def test_of_factors_the_spectrum_is_that_of_their_product() -> None:
    A, B = normal(1, 4, 30), normal(2, 20, 4)
    product = 0.5 * (B.double() @ A.double())
    found, dense = low_rank_energy(A, B, 0.5), dense_energy(product, 0, "w", 0.01)
    assert found.total == pytest.approx(dense.total)
    assert found.top == found.top_at_most == pytest.approx(dense.top)


class Reader(nn.Module):
    """A model whose loss of an item is its embeddings' sum along a direction: linear, so that the worst is known."""

    def __init__(self, size: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.embedding.weight.data.copy_(size * normal(0, 7, 5))
        self.slope = nn.Parameter(normal(1, 5) / size)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def losses(self) -> Tensor:
        return (self.embedding(TOKENS) @ self.slope).sum(dim=1)


TOKENS = torch.tensor([[0, 1, 2], [3, 3, 6]])


@pytest.mark.parametrize("size", [1.0, 50.0])
def test_of_a_linear_loss_the_worst_input_is_the_ball_along_the_slope(size: float) -> None:
    model = Reader(size)
    found = input_sensitivity(model, model.losses, radius=0.1, steps=3)
    lengths = model.embedding.weight[TOKENS].norm(dim=-1).sum(dim=1)
    assert found == pytest.approx((0.1 * lengths * model.slope.norm()).detach().numpy(), rel=1e-4)


def test_the_search_in_the_input_leaves_the_model_as_it_was() -> None:
    model = Reader()
    before = model.losses()
    input_sensitivity(model, model.losses, radius=0.5, steps=2)
    assert torch.equal(model.losses(), before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_an_input_that_does_not_matter_has_no_worst_change() -> None:
    model = Reader()
    model.slope.data.zero_()
    assert input_sensitivity(model, model.losses, radius=0.5, steps=2).tolist() == [0.0, 0.0]


class Update:
    """An update of three layers."""

    def names(self) -> list[str]:
        return ["layers.0.w", "layers.1.w", "head"]

    def delta(self, name: str) -> Tensor:
        return torch.full((2,), 1.0 + self.names().index(name))


def test_a_mixture_multiplies_each_block_by_its_own_number_and_is_the_same_again() -> None:
    found, again = (drawn_mixture(Update(), block_of, 0.5, 7, 3) for _ in range(2))
    assert set(found.multiples) == {"0", "1", "rest"}
    assert found.multiples == again.multiples
    assert found.multiples != drawn_mixture(Update(), block_of, 0.5, 7, 4).multiples
    assert torch.equal(found.delta("layers.1.w"), torch.full((2,), 2.0) * found.multiples["1"])


def test_mixtures_lie_around_the_candidate_with_the_scale_asked_for() -> None:
    drawn = [drawn_mixture(Update(), block_of, 0.5, 7, n).multiples["0"] for n in range(400)]
    assert np.mean(drawn) == pytest.approx(1.0, abs=0.1)
    assert np.std(drawn) == pytest.approx(0.5, abs=0.06)


def test_beside_a_cliff_the_certified_radius_is_the_distance_at_which_the_score_is_the_floor() -> None:
    # S = 1 while c₁ > cliff: p = Φ((1 − cliff)/s), and centred at c′₁ it is Φ((c′₁ − cliff)/s): the certificate is tight.
    scale, cliff, floor = 0.5, 0.2, 0.8
    radius = certified(float(stats.norm.cdf((1 - cliff) / scale)), scale, floor)
    assert float(stats.norm.cdf((1 - radius - cliff) / scale)) == pytest.approx(floor)


def test_the_certified_radius_holds_with_the_confidence_it_promises() -> None:
    scale, cliff, floor, wrong = 0.5, 0.2, 0.5, 0
    truth = certified(float(stats.norm.cdf((1 - cliff) / scale)), scale, floor)
    for seed in range(300):
        multiples: dict[str, float] = {}

        def place(draw: int, seed: int = seed, multiples: dict[str, float] = multiples) -> None:
            multiples.update(drawn_mixture(Update(), block_of, scale, seed, draw).multiples)

        def score(items: Sequence[int], multiples: dict[str, float] = multiples) -> np.ndarray:
            return np.array([float(multiples["0"] > cliff) for _ in items])

        scores = mixture_scores(place, {"c": score}, {"c": [0, 1]}, 32)
        found = merge_radius(scores["c"], scale, floor, 0.1)
        assert found.lower == found.value
        wrong += found.value > truth
    # 300 · 0.1 = 30 are allowed on average; 45 is three standard deviations more.
    assert wrong <= 45


class Point(nn.Module):
    """Weights that are just a point in space."""

    def __init__(self, *at: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(at))


def attacked(model: Point, broken: Callable[[], bool], **wanted: float) -> tuple[Attack, ...]:
    slope = torch.tensor([3.0, 4.0])
    chosen = {"reach": 10.0, "steps": 15, "seeds": 5, "seed": 0} | wanted
    return attacks(model, Snapshot.of(model), lambda _n, _s: slope @ model.theta, broken, **chosen)


def test_the_tamper_radius_is_the_distance_to_the_cliff_up_to_one_step() -> None:
    model = Point(0.0, 0.0)
    found = attacked(model, lambda: float(torch.tensor([0.6, 0.8]) @ model.theta.detach()) >= 1.0)
    radius = tamper_radius(found, weight_norm=2.0)
    assert len(found) == 5
    assert radius.upper == radius.value == min(a.norm for a in found) / 2.0
    # The step that crosses the cliff is half as long as all before it together, so the radius is known to that.
    assert 1.0 <= min(a.norm for a in found) <= max(a.norm for a in found) <= 1.6
    assert radius.lower is None
    assert model.theta.tolist() == [0.0, 0.0]


def test_attacks_that_fail_give_no_upper_bound() -> None:
    radius = tamper_radius(attacked(Point(0.0, 0.0), lambda: False), weight_norm=1.0)
    assert radius.upper is None
    assert radius.value == pytest.approx(10.0, rel=0.01)


def test_what_is_broken_from_the_start_has_no_radius() -> None:
    assert tamper_radius(attacked(Point(0.0, 0.0), lambda: True), weight_norm=1.0).value == 0.0


def test_where_there_is_no_slope_the_attack_has_failed() -> None:
    model = Point(1.0, 1.0)
    found = attacks(
        model,
        Snapshot.of(model),
        lambda _n, _s: 0.0 * model.theta.sum(),
        lambda: False,
        reach=1.0,
        steps=3,
        seeds=5,
        seed=0,
    )
    assert not any(attack.broke for attack in found)


def test_the_ratio_compares_seed_with_seed_and_needs_a_base_that_breaks() -> None:
    base = [Attack(1.0, True), Attack(2.0, True)]
    found = tamper_ratio([Attack(0.5, True), Attack(1.0, True)], base, 0.05)
    assert found is not None
    assert (found.value, found.upper) == (pytest.approx(0.5), pytest.approx(0.5))
    withstood = tamper_ratio([Attack(8.0, False), Attack(16.0, True)], base, 0.05)
    assert withstood is not None
    assert withstood.upper is None
    assert tamper_ratio([Attack(1.0, True)], [Attack(1.0, False)], 0.05) is None


def test_the_steps_of_an_attack_grow_and_reach_as_far_as_was_asked() -> None:
    lengths = list(step_lengths(2.0, 9))
    assert sum(lengths) == pytest.approx(2.0)
    assert all(math.isclose(b / a, 1.5) for a, b in pairwise(lengths))
