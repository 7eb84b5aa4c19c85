"""Noise that depends on its key alone, and weights that come back exactly."""

import math

import pytest
import torch
from scipy import stats
from tiny_language import tiny_llama

from tasks.measurements.perturbation import (
    BLOCK,
    Moved,
    Snapshot,
    along,
    normals,
    perturb,
    random_like,
    weight_norm,
    write_weights,
)


class Update:
    """A delta held in a dictionary."""

    def __init__(self, deltas: dict[str, torch.Tensor]) -> None:
        self.deltas = deltas

    def names(self) -> list[str]:
        return list(self.deltas)

    def delta(self, name: str) -> torch.Tensor:
        return self.deltas[name]


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_noise_is_standard_normal() -> None:
    assert stats.kstest(normals(3, "w", 1, [20_000]).numpy(), "norm").pvalue > 0.001


def test_noise_depends_on_seed_tensor_and_draw() -> None:
    drawn = [normals(*key, [8]) for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (1 << 32, "a", 0))]
    assert len({tuple(d.tolist()) for d in drawn}) == 5
    assert torch.equal(drawn[0], normals(0, "a", 0, [8]))


def test_noise_goes_on_beyond_a_block_without_repeating() -> None:
    noise = normals(0, "w", 0, [BLOCK + 1000])
    assert not torch.equal(noise[BLOCK:], noise[:1000])
    assert torch.equal(noise[: BLOCK // 2], normals(0, "w", 0, [BLOCK // 2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_perturbing_a_hundred_times_comes_back_exactly(dtype: torch.dtype) -> None:
    model, pristine = tiny_llama(dtype=dtype), tiny_llama(dtype=dtype)
    base = Snapshot.of(pristine)
    for draw in range(100):
        perturb(model, base, 0.3, 1, draw)
    assert not same(model, pristine)
    write_weights(model, base)
    assert same(model, pristine)


def test_the_realised_noise_has_the_nominal_scale() -> None:
    found = perturb(tiny_llama(), Snapshot.of(tiny_llama()), 0.02, 5, 0)
    assert found.rms == pytest.approx(0.02, rel=0.05)
    assert found.unchanged_fraction == 0.0
    assert found.norm == pytest.approx(found.rms * math.sqrt(found.parameters))


def test_noise_too_small_for_the_dtype_is_reported_as_lost() -> None:
    model = tiny_llama(dtype=torch.bfloat16)
    found = perturb(model, Snapshot.of(model), 1e-5, 5, 0)
    assert found.unchanged_fraction > 0.9


def test_one_draw_is_one_direction_at_every_scale() -> None:
    model, base = tiny_llama(), Snapshot.of(tiny_llama())
    moves = []
    for sigma in (0.1, 0.2):
        perturb(model, base, sigma, 9, 2)
        moves.append(model.model.norm.weight.detach() - base.tensor("model.norm.weight"))
    assert torch.allclose(2 * moves[0], moves[1], atol=1e-6)


def test_a_tied_tensor_is_perturbed_once_whichever_name_a_file_uses() -> None:
    model = tiny_llama(tied=True)
    tensors = dict(Snapshot.of(model).tensors)
    renamed = dict(tensors)
    renamed["lm_head.weight"] = renamed.pop("model.embed_tokens.weight")
    both = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    seen = []
    for named in (tensors, renamed, both):
        found = perturb(model, Snapshot(named), 0.1, 1, 1)
        seen.append((found, model.lm_head.weight.detach().clone()))
    assert seen[0][0] == seen[1][0] == seen[2][0]
    assert torch.equal(seen[0][1], seen[1][1])
    assert torch.equal(seen[0][1], seen[2][1])
    assert seen[0][0].parameters == sum(p.numel() for p in model.parameters())


def test_weights_of_another_model_are_refused() -> None:
    tensors = Snapshot.of(tiny_llama()).tensors
    norm = tensors.pop("model.norm.weight")
    with pytest.raises(ValueError, match=r"missing \['model.norm.weight'\]"):
        write_weights(tiny_llama(), Snapshot(tensors))
    with pytest.raises(ValueError, match=r"unknown \['extra'\]"):
        write_weights(tiny_llama(), Snapshot(tensors | {"model.norm.weight": norm, "extra": norm}))
    with pytest.raises(ValueError, match=r"expected shape \(16,\), found \(8,\)"):
        write_weights(tiny_llama(), Snapshot(tensors | {"model.norm.weight": norm[:8]}))


def test_along_is_the_base_at_zero_and_the_candidate_at_one() -> None:
    model, base, candidate = tiny_llama(), Snapshot.of(tiny_llama(0)), Snapshot.of(tiny_llama(1))
    update = Update({n: candidate.tensor(n) - base.tensor(n) for n in base.names()})
    along(model, base, update, 0.0)
    assert same(model, tiny_llama(0))
    along(model, base, update, 1.0)
    assert all(torch.allclose(p, candidate.tensor(n), atol=1e-6) for n, p in model.named_parameters())
    along(model, base, update, 3.0)
    expected = base.tensor("model.norm.weight") + 3 * update.delta("model.norm.weight")
    assert torch.allclose(model.model.norm.weight, expected)


def test_tensors_without_an_update_stay() -> None:
    base = Snapshot.of(tiny_llama())
    moved = Moved(base, Update({"model.norm.weight": torch.ones(16)}), 0.5)
    assert torch.equal(moved.tensor("model.norm.weight"), base.tensor("model.norm.weight") + 0.5)
    assert moved.tensor("model.embed_tokens.weight") is base.tensor("model.embed_tokens.weight")


def test_an_update_of_unknown_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found \['nowhere'\]"):
        Moved(Snapshot.of(tiny_llama()), Update({"nowhere": torch.ones(1)}))


def test_a_random_direction_has_the_updates_norm_tensor_by_tensor() -> None:
    update = Update({"a": torch.full((40, 10), 0.3), "still": torch.zeros(5), "b": torch.arange(4.0)})
    control = random_like(update, seed=1, draw=0)
    for name in update.names():
        assert float(control.delta(name).norm()) == pytest.approx(float(update.delta(name).norm()), rel=1e-6)
    a = control.delta("a").flatten()
    assert abs(float(torch.nn.functional.cosine_similarity(a, update.delta("a").flatten(), dim=0))) < 0.2
    assert not torch.equal(a, random_like(update, seed=1, draw=1).delta("a").flatten())


def test_the_weight_norm_is_that_of_all_parameters() -> None:
    model = tiny_llama()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert weight_norm(Snapshot.of(model)) == pytest.approx(float(flat.double().norm()))
