"""The preconditioned gradient: what it is of each item's own, its bounds, and the cosine's null and ends."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from tiny_language import tiny_llama, tiny_tokenizer
from torch import Tensor

from gate.domain.checkpoint import Checkpoint, Layout
from gate.domain.evidence import Name
from tasks.checkpoints import locate
from tasks.folder_scan import scan
from tasks.measurements.benchmark import Benchmark, Item, answer_loss
from tasks.measurements.gradients import capability_gradients, preconditioned, squared_gradients
from tasks.static_stage import BaseFiles, StaticResult, inspect_folder
from tasks.sweep import preconditioned_key

TOKENIZER = tiny_tokenizer()
ANSWERS = ("x", "yz", "no", "on", "w")


def benchmark(answers: tuple[str, ...] = ANSWERS) -> Benchmark:
    return Benchmark("c", "exact", tuple(Item(p, answer=a) for p, a in zip("abcde", answers, strict=False)), 0.1)


def directions(asked: Benchmark) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradient of the capability, and the preconditioned one."""
    model = tiny_llama()
    plain = {name: g.clone() for _, name, g in capability_gradients(model, TOKENIZER, [asked])}
    squares = squared_gradients(model, TOKENIZER, asked)
    return plain, {name: preconditioned(g, squares[name]) for name, g in plain.items()}


def test_the_squares_are_the_mean_over_items_of_each_ones_own() -> None:
    model, asked = tiny_llama(), benchmark()
    own = []
    for item in range(len(ANSWERS)):
        model.zero_grad()
        answer_loss(model, TOKENIZER, asked, [item]).backward()
        own.append({name: p.grad.clone() for name, p in model.named_parameters()})
    squares = squared_gradients(model, TOKENIZER, asked)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, square in squares.items():
        expected = torch.stack([each[name].square() for each in own]).mean(dim=0)
        torch.testing.assert_close(square, expected, rtol=1e-5, atol=1e-12)


def test_a_weight_counts_by_how_far_the_items_agree_and_never_more_than_one() -> None:
    plain, turned = directions(benchmark())
    for name, h in turned.items():
        assert torch.isfinite(h).all()
        assert float(h.abs().max()) <= 1 + 1e-3
        assert not h[plain[name] == 0].any()
    assert any(float(h.abs().max()) < 0.9 for h in turned.values())


def test_of_one_item_it_is_the_gradients_sign() -> None:
    plain, turned = directions(benchmark(("x",)))
    for name, h in turned.items():
        large = plain[name].abs() > 1e-6
        torch.testing.assert_close(h[large], plain[name].sign()[large], rtol=1e-3, atol=1e-3)


@pytest.fixture
def base(tmp_path: Path) -> BaseFiles:
    folder = tmp_path / "base"
    tiny_llama().save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    whole = inspect_folder(folder)
    assert scan(folder).files
    return locate(folder), Checkpoint(layout=Layout.FULL, files=whole.checkpoint.files)


def moved(base: BaseFiles, by: dict[str, Tensor], folder: Path) -> Path:
    model = tiny_llama()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(by[name])
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def found(result: StaticResult, name: Name) -> float:
    return next(m.estimate.value for m in result.measurements if (m.name, m.capability) == (name, "c"))


def kept(tmp_path: Path) -> tuple[Path, dict[str, Tensor], dict[str, Tensor]]:
    plain, turned = directions(benchmark())
    tensors = {f"c/{name}": g for name, g in plain.items()}
    tensors |= {f"{preconditioned_key('c')}/{name}": h for name, h in turned.items()}
    save_file(tensors, tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors", plain, turned


def test_a_step_along_it_has_cosine_one_and_the_loss_it_predicts_is_the_product(
    base: BaseFiles, tmp_path: Path
) -> None:
    gradients, plain, turned = kept(tmp_path)
    step = {name: 0.01 * h for name, h in turned.items()}
    result = inspect_folder(moved(base, step, tmp_path / "moved"), base, gradients)
    count = sum(h.numel() for h in turned.values())
    assert found(result, Name.PRECONDITIONED_ALIGNMENT) == pytest.approx(1.0, abs=1e-4)
    assert found(result, Name.PRECONDITIONED_ALIGNMENT_Z) == pytest.approx(math.sqrt(count), rel=1e-4)
    product = sum(float(plain[name].double().flatten() @ step[name].double().flatten()) for name in step)
    assert found(result, Name.PREDICTED_LOSS_INCREASE) == pytest.approx(product, rel=1e-3)
    assert found(result, Name.WORST_CASE_ALIGNMENT) < 0.95


def test_of_random_steps_its_z_is_standard_normal(base: BaseFiles, tmp_path: Path) -> None:
    gradients, _, turned = kept(tmp_path)
    drawn = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        step = {name: 0.01 * torch.randn(h.shape, generator=generator) for name, h in turned.items()}
        folder = moved(base, step, tmp_path / f"random-{seed}")
        drawn.append(found(inspect_folder(folder, base, gradients), Name.PRECONDITIONED_ALIGNMENT_Z))
    assert stats.kstest(drawn, "norm").pvalue > 0.01


def test_without_it_in_the_profile_nothing_is_said_of_it(base: BaseFiles, tmp_path: Path) -> None:
    plain, turned = directions(benchmark())
    save_file({f"c/{name}": g for name, g in plain.items()}, tmp_path / "g.safetensors")
    result = inspect_folder(moved(base, turned, tmp_path / "moved"), base, tmp_path / "g.safetensors")
    names = {m.name for m in result.measurements}
    assert Name.WORST_CASE_ALIGNMENT in names
    assert not names & {Name.PRECONDITIONED_ALIGNMENT, Name.PREDICTED_LOSS_INCREASE}
