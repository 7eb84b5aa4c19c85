"""The displacement tally against closed forms, a naive reference, and lies in its input."""

import math

import pytest
import torch

from tasks.measurements.chunk_sums import SLICE
from tasks.measurements.displacement import DisplacementTally


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nothing_has_no_displacement() -> None:
    found = DisplacementTally(["math"]).result()
    assert (found.norm, found.rms, found.relative, found.parameters) == (0.0, 0.0, 0.0, 0)
    assert found.alignment["math"].z == 0.0


def test_equal_weights_have_no_displacement() -> None:
    tally = DisplacementTally(["math"])
    tally.add("w", normal(0, 4, 5), normal(0, 4, 5), {"math": normal(1, 4, 5)})
    found = tally.result()
    assert (found.norm, found.changed_fraction, found.alignment["math"].cosine) == (0.0, 0.0, 0.0)


def test_norms_follow_pythagoras_over_tensors() -> None:
    tally = DisplacementTally()
    tally.add("b", torch.zeros(1), torch.tensor([3.0]))
    tally.add("a", torch.tensor([[1.0]]), torch.tensor([[5.0]]))
    found = tally.result()
    assert (found.norm, found.rms, found.base_norm, found.relative) == (5.0, 5.0 / math.sqrt(2), 1.0, 5.0)
    assert [(row.tensor, row.norm, row.base_norm) for row in found.layers] == [("a", 4.0, 1.0), ("b", 3.0, 0.0)]


def test_moving_down_the_gradient_has_cosine_minus_one() -> None:
    gradient = normal(2, 100)
    tally = DisplacementTally(["safety"])
    tally.add("w", torch.zeros(100), -0.5 * gradient, {"safety": gradient})
    found = tally.result().alignment["safety"]
    assert found.cosine == pytest.approx(-1.0)
    assert found.z == pytest.approx(-10.0)
    assert found.predicted_loss_change == pytest.approx(-0.5 * float(gradient @ gradient), rel=1e-6)


def test_random_directions_have_alignment_of_unit_variance() -> None:
    gradient, zs = normal(0, 400), []
    for seed in range(1, 301):
        tally = DisplacementTally(["c"])
        tally.add("w", torch.zeros(400), normal(seed, 400), {"c": gradient})
        zs.append(tally.result().alignment["c"].z)
    assert sum(zs) / 300 == pytest.approx(0.0, abs=0.2)
    assert sum(z * z for z in zs) / 300 == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_slices_add_up_to_the_naive_answer(dtype: torch.dtype) -> None:
    size = 2 * SLICE + 17
    base, candidate = normal(0, size).to(dtype), normal(1, size).to(dtype)
    tally = DisplacementTally()
    tally.add("w", base, candidate)
    delta = candidate.double() - base.double()
    assert tally.result().norm == pytest.approx(float(delta.norm()), rel=1e-6)
    assert tally.result().changed_fraction == float((delta != 0).double().mean())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_million_16_bit_weights_give_the_norms_to_seven_digits(dtype: torch.dtype) -> None:
    base = (0.02 * normal(0, 1 << 20)).to(dtype)
    candidate = (base.float() + 2e-4 * normal(1, 1 << 20)).to(dtype)
    tally = DisplacementTally()
    tally.add("w", base, candidate)
    found, delta = tally.result(), candidate.double() - base.double()
    assert found.norm == pytest.approx(float(delta.norm()), rel=1e-7)
    assert found.base_norm == pytest.approx(float(base.double().norm()), rel=1e-7)
    assert found.changed_fraction == float((delta != 0).double().mean())


@pytest.mark.parametrize("size", [1e-30, 1e-38, 3e38])
def test_16_bit_weights_whose_squares_leave_float32_are_measured_all_the_same(size: float) -> None:
    base = torch.tensor([0.0, size, -size]).bfloat16()
    candidate = torch.tensor([size, size, -size / 2]).bfloat16()
    tally = DisplacementTally(["c"])
    tally.add("w", base, candidate, {"c": torch.tensor([1.0, 0.0, 0.0])})
    found = tally.result()
    assert found.non_finite == ()
    assert found.norm == pytest.approx(size * math.sqrt(1.25), rel=0.01)
    assert found.base_norm == pytest.approx(size * math.sqrt(2), rel=0.01)
    assert found.changed_fraction == pytest.approx(2 / 3)
    assert found.alignment["c"].predicted_loss_change == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_weights_are_named_and_do_not_spoil_the_sums(bad: float, dtype: torch.dtype) -> None:
    tally = DisplacementTally(["c"])
    tally.add("good", torch.zeros(1).to(dtype), torch.tensor([3.0]).to(dtype), {"c": torch.ones(1)})
    tally.add("bad", torch.zeros(3).to(dtype), torch.tensor([4.0, bad, 0.0]).to(dtype), {"c": torch.ones(3)})
    found = tally.result()
    assert found.non_finite == ("bad",)
    assert (found.norm, found.changed_fraction, found.alignment["c"].predicted_loss_change) == (5.0, 0.75, 7.0)


def test_a_low_rank_update_counts_like_its_product() -> None:
    base, A, B, gradient = normal(0, 30, 20), normal(1, 4, 20), normal(2, 30, 4), normal(3, 30, 20)
    low, dense = DisplacementTally(["c"]), DisplacementTally(["c"])
    low.add_low_rank("w", base, A, B, 0.25, {"c": gradient})
    dense.add("w", base.double(), base.double() + 0.25 * (B.double() @ A.double()), {"c": gradient})
    found, expected = low.result(), dense.result()
    assert found.norm == pytest.approx(expected.norm, rel=1e-5)
    assert found.base_norm == pytest.approx(expected.base_norm, rel=1e-6)
    assert found.alignment["c"].cosine == pytest.approx(expected.alignment["c"].cosine, rel=1e-4)
    assert found.changed_fraction == expected.changed_fraction == 1.0


def test_a_fresh_adapter_changes_nothing() -> None:
    tally = DisplacementTally(["c"])
    tally.add_low_rank("w", normal(0, 6, 5), normal(1, 2, 5), torch.zeros(6, 2), 2.0, {"c": normal(2, 6, 5)})
    found = tally.result()
    assert (found.norm, found.changed_fraction, found.alignment["c"].cosine) == (0.0, 0.0, 0.0)


def test_a_non_finite_adapter_is_named() -> None:
    tally = DisplacementTally()
    tally.add_low_rank("w", torch.ones(2, 2), torch.tensor([[1.0, math.nan]]), torch.ones(2, 1), 1.0)
    assert tally.result().non_finite == ("w",)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 2), (2, 3)), "candidate of the base's shape"),
        (((4,), (2, 2)), "candidate of the base's shape"),
    ],
)
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DisplacementTally().add("w", torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_an_adapter_for_another_base_is_refused() -> None:
    with pytest.raises(ValueError, match="another base"):
        DisplacementTally().add_low_rank("w", torch.zeros(4, 4), torch.zeros(2, 5), torch.zeros(4, 2), 1.0)


def test_a_gradient_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of \['math'\], found 'code'"):
        DisplacementTally(["math"]).add("w", torch.zeros(1), torch.zeros(1), {"code": torch.zeros(1)})


def test_a_tensor_cannot_be_counted_twice_as_low_rank() -> None:
    tally = DisplacementTally()
    tally.add_low_rank("w", torch.zeros(2, 2), torch.ones(1, 2), torch.ones(2, 1), 1.0)
    with pytest.raises(ValueError, match="add it once"):
        tally.add_low_rank("w", torch.zeros(2, 2), torch.ones(1, 2), torch.ones(2, 1), 1.0)
    with pytest.raises(ValueError, match="add it once"):
        tally.add("w", torch.zeros(2), torch.ones(2))
