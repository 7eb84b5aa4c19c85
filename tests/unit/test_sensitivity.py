"""Adversarial sensitivity where the worst case is known on paper, and on a real tiny language model."""

import math

import pytest
import torch
from tiny_language import tiny_llama, tiny_tokenizer
from torch import nn

from tasks.measurements.benchmark import Benchmark, Item, answer_loss
from tasks.measurements.gradients import capability_gradients
from tasks.measurements.perturbation import Snapshot, normals
from tasks.measurements.sensitivity import ascend, measure_sensitivity, seeds_interval, sensitivity_ratio

TOKENIZER = tiny_tokenizer()


class Point(nn.Module):
    """Weights that are just a point in space."""

    def __init__(self, *at: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(at))


def search(model: Point, loss: object, radius: float, steps: int = 4) -> object:
    return ascend(
        model, Snapshot.of(model), loss, clean_loss=float(loss().detach()), radius=radius, steps=steps, seed=0
    )


def test_on_a_slope_the_worst_case_is_the_radius_times_the_slope() -> None:
    model, slope = Point(*[0.0] * 50), normals(0, "slope", 0, [50])
    found = search(model, lambda: slope @ model.theta, radius=0.3)
    assert found.increase == pytest.approx(0.3 * float(slope.norm()), rel=1e-3)
    assert found.norm == pytest.approx(0.3, rel=1e-5)


def test_in_a_bowl_the_worst_case_is_along_its_steepest_axis() -> None:
    model, curvature = Point(*[0.0] * 20), torch.tensor([1.0] * 19 + [40.0])
    found = search(model, lambda: (curvature * model.theta**2).sum() / 2, radius=0.5, steps=30)
    assert found.increase == pytest.approx(40 * 0.5**2 / 2, rel=0.02)


def test_the_search_never_leaves_the_ball() -> None:
    model = Point(1.0, 2.0, 3.0)
    seen = []

    def loss() -> torch.Tensor:
        seen.append(float((model.theta.detach() - torch.tensor([1.0, 2.0, 3.0])).norm()))
        return model.theta.pow(2).sum()

    search(model, loss, radius=0.2, steps=10)
    assert max(seen) <= 0.2 * (1 + 1e-5)


def test_where_every_change_helps_the_worst_case_is_no_change() -> None:
    model = Point(0.0, 0.0)
    assert search(model, lambda: -model.theta.abs().sum(), radius=0.1).increase == 0.0


def test_an_overflowing_loss_is_not_taken_for_a_find() -> None:
    model = Point(0.0, 0.0)

    def loss() -> torch.Tensor:
        return torch.where(model.theta.norm() > 0.5, torch.tensor(math.inf), model.theta.sum())

    assert math.isfinite(search(model, loss, radius=1.0).increase)


def test_a_flat_loss_ends_the_search_at_once() -> None:
    model = Point(1.0)
    assert search(model, lambda: 0 * model.theta.sum(), radius=1.0).increase == 0.0


def measured(radius: float = 0.3, dtype: torch.dtype = torch.float32) -> object:
    model = tiny_llama(dtype=dtype)
    benchmark = Benchmark("c", "exact", tuple(Item(p, answer="no, i will not") for p in "abcdefgh"), 0.1)
    before = Snapshot.of(model)
    found = measure_sensitivity(
        model,
        before,
        lambda items: answer_loss(model, TOKENIZER, benchmark, items),
        8,
        capability="c",
        radius=radius,
        steps=3,
        seeds=3,
        items=4,
        seed=5,
    )
    assert all(torch.equal(p, before.tensor(n)) and p.dtype == dtype for n, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    return found


def test_a_language_models_worst_direction_is_far_worse_than_a_random_one() -> None:
    found = measured()
    assert min(found.adversarial) > 5 * max(abs(r) for r in found.random)
    assert len(set(found.adversarial)) == 3


def test_the_same_seed_finds_the_same() -> None:
    assert measured() == measured()


def test_a_ball_below_the_dtypes_resolution_is_searched_nevertheless() -> None:
    # Half a unit in bfloat16's last place of these weights is about 1e-3; the ball allows 1e-5 per weight.
    radius = 1e-5 * sum(p.numel() for p in tiny_llama().parameters()) ** 0.5
    coarse, fine = measured(radius, torch.bfloat16), measured(radius, torch.float32)
    assert coarse.adversarial == pytest.approx(fine.adversarial, rel=0.05)
    assert min(coarse.adversarial) > 0


def test_a_larger_ball_is_never_less_sensitive() -> None:
    small, large = measured(radius=0.1), measured(radius=0.4)
    assert all(a < b for a, b in zip(small.adversarial, large.adversarial, strict=True))


def test_a_model_compared_with_itself_has_ratio_one() -> None:
    found = sensitivity_ratio([0.5, 2.0, 1.0], [0.5, 2.0, 1.0], 0.05)
    assert (found.value, found.lower, found.upper) == (1.0, 1.0, 1.0)


def test_the_ratio_of_nothing_to_something_is_small_and_finite() -> None:
    found = sensitivity_ratio([0.0, 0.0], [1.0, 2.0], 0.05)
    assert 0 <= found.lower <= found.value < 1e-5
    assert math.isfinite(found.upper)


def test_the_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="found 1 and 2"):
        sensitivity_ratio([1.0], [1.0, 2.0], 0.05)


def test_searched_increases_have_no_negative_bound() -> None:
    assert seeds_interval([0.0, 0.1, 3.0], 0.05).lower == 0.0
    assert seeds_interval([-0.1, 0.1], 0.05).lower < 0.0


def test_gradients_are_the_mean_over_items_whatever_the_batch() -> None:
    model = tiny_llama()
    benchmark = Benchmark(
        "c", "exact", tuple(Item(p, answer=a) for p, a in zip("abcde", ("x", "yz", "no", "on", "w"), strict=True)), 0.1
    )
    split = {name: g for _, name, g in capability_gradients(model, TOKENIZER, [benchmark], batch=2)}
    model.zero_grad()
    answer_loss(model, TOKENIZER, benchmark, range(5)).backward()
    assert list(split) == [name for name, _ in model.named_parameters()]
    assert "lm_head.weight" not in split
    assert all(torch.allclose(split[name], p.grad, atol=1e-6) for name, p in model.named_parameters())


def test_each_capability_has_its_own_gradient_and_keeps_it() -> None:
    benchmarks = [Benchmark(c, "exact", (Item("ask", answer=c),), 0.1) for c in ("left", "right")]
    found = list(capability_gradients(tiny_llama(), TOKENIZER, benchmarks))
    apart = list(capability_gradients(tiny_llama(), TOKENIZER, benchmarks[:1]))
    assert {c for c, _, _ in found} == {"left", "right"}
    assert all(torch.equal(g, h) for (_, _, g), (_, _, h) in zip(found, apart, strict=False))
