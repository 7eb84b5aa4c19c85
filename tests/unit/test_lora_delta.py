"""The update read from a LoRA folder is the one PEFT merges; what is no plain LoRA on this base is refused."""

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from checkpoint_folders import (
    EMBEDDING,
    Q,
    as_base,
    codes,
    copied,
    message,
    model_folder,
    open_weights,
    reconfigured,
    tensors,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from gate.domain.errors import NotMeasurable
from gate.domain.evidence import DefectCode, Name
from tasks.checkpoints import FullDelta, LoraDelta, WrongBase, load_model, locate, open_delta
from tasks.measurements.perturbation import Moved
from tasks.static_stage import BaseFiles, inspect_folder


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("lora") / "base", tied=False)


@pytest.fixture(scope="module")
def base(base_folder: Path) -> BaseFiles:
    return as_base(base_folder)


def adapter(base_folder: Path, out: Path, **choices: Any) -> Path:
    """A LoRA folder with factors as if trained: none of them zero."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | choices
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(out, save_embedding_layers=False)
    return out


def merged(base_folder: Path, folder: Path) -> dict[str, torch.Tensor]:
    """PEFT's own merge of the adapter into its base."""
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder)
    return dict(model.merge_and_unload().state_dict())


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
        {"use_dora": True, "target_modules": ["embed_tokens", "v_proj"]},
        {"r": 8, "lora_alpha": 3, "target_modules": "all-linear"},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 40}, "rank_pattern": {"down_proj": 2}},
        {"target_modules": ["embed_tokens", "v_proj"]},
        {"modules_to_save": ["lm_head", "norm"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ],
    ids=[
        "plain",
        "rank-stabilised",
        "dora",
        "dora-everywhere",
        "dora-embedding",
        "all-linear",
        "patterns",
        "embedding",
        "modules-to-save",
        "one-layer",
    ],
)
def test_the_update_is_the_one_peft_merges(base_folder: Path, tmp_path: Path, choices: dict[str, Any]) -> None:
    folder = adapter(base_folder, tmp_path / "adapter", **choices)
    weights, expected = open_weights(base_folder), merged(base_folder, folder)
    delta = LoraDelta.open(locate(folder), weights)
    moved = {name for name, tensor in expected.items() if not torch.equal(tensor, weights.tensor(name))}
    assert set(delta.names()) == moved
    for name in delta.names():
        torch.testing.assert_close(weights.tensor(name) + delta.delta(name), expected[name], rtol=1e-5, atol=1e-6)


def test_transposed_weights_get_the_transposed_update(tmp_path: Path) -> None:
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8, tie_word_embeddings=False)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    targets = ["c_attn", "c_proj"]  # (16, 48), (16, 16) and (64, 16): a square one needs the setting
    folder = adapter(tmp_path / "gpt2", tmp_path / "adapter", target_modules=targets, fan_in_fan_out=True)
    weights, expected = open_weights(tmp_path / "gpt2"), merged(tmp_path / "gpt2", folder)
    delta = LoraDelta.open(locate(folder), weights)
    assert len(delta.names()) == 3
    for name in delta.names():
        torch.testing.assert_close(weights.tensor(name) + delta.delta(name), expected[name], rtol=1e-5, atol=1e-6)


def test_any_run_of_the_update_is_that_part_of_it(base_folder: Path, tmp_path: Path) -> None:
    delta = LoraDelta.open(locate(adapter(base_folder, tmp_path / "a")), open_weights(base_folder))
    for name in delta.names():
        whole = delta.delta(name).reshape(-1)
        for first, count in ((0, 1), (5, 40), (17, 16), (whole.numel() - 3, 3)):
            torch.testing.assert_close(delta.run(name, first, count), whole[first : first + count])


def test_an_adapter_and_its_merged_model_have_the_same_displacement(
    base_folder: Path, base: BaseFiles, tmp_path: Path
) -> None:
    folder = adapter(base_folder, tmp_path / "a")
    whole = copied(base_folder, tmp_path / "merged")
    save_file({n: merged(base_folder, folder)[n].contiguous() for n in tensors(whole)}, whole / "model.safetensors")
    generator = torch.Generator().manual_seed(4)
    gradients = {f"math/{n}": torch.randn(t.shape, generator=generator) for n, t in tensors(base_folder).items()}
    save_file(gradients, tmp_path / "g.safetensors")
    unmerged, full = (inspect_folder(f, base, tmp_path / "g.safetensors") for f in (folder, whole))
    assert unmerged.defects == full.defects == ()
    assert [m.name for m in unmerged.measurements] == [m.name for m in full.measurements]
    for mine, other in zip(unmerged.measurements, full.measurements, strict=True):
        assert mine.estimate.value == pytest.approx(other.estimate.value, rel=1e-4)
        assert mine.estimate.n == other.estimate.n


def test_an_adapters_norm_is_the_factors_norm(base_folder: Path, base: BaseFiles, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "a", target_modules=["q_proj"], use_rslora=True)
    factors = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    products = [8 / math.sqrt(4) * factors[prefix.format(n, "B")] @ factors[prefix.format(n, "A")] for n in (0, 1)]
    found = inspect_folder(folder, base)
    norm = next(m.estimate.value for m in found.measurements if m.name is Name.DISPLACEMENT_NORM)
    assert norm == pytest.approx(math.sqrt(sum(float(p.double().square().sum()) for p in products)), rel=1e-5)


def test_the_base_moved_by_the_adapter_loads_as_the_merged_model(base_folder: Path, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "a")
    weights = open_weights(base_folder)
    model, _ = load_model(locate(base_folder), Moved(weights, open_delta(locate(folder), weights)))
    expected = merged(base_folder, folder)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


def test_a_full_delta_is_the_difference_of_the_shared_weights(base_folder: Path, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", seed=5, tied=False)
    delta = open_delta(locate(other), open_weights(base_folder))
    assert isinstance(delta, FullDelta)
    assert list(delta.names()) == sorted(tensors(other))
    assert torch.equal(delta.delta(Q), tensors(other)[Q] - tensors(base_folder)[Q])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "magnitudes"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"a_setting_of_the_future": 1}, "a_setting_of_the_future"),
        ({"alpha_pattern": {"(a+)+$": 4}}, "expression"),
        ({"lora_alpha": "8"}, "lora_alpha"),
        ({"lora_alpha": math.inf}, "lora_alpha"),
        ({"r": 5}, "rank 5"),
        ({"auto_mapping": {"base_model_class": "M", "parent_library": "evil"}}, "auto_mapping"),
    ],
)
def test_what_is_no_plain_lora_is_refused_with_its_reason(
    base_folder: Path, base: BaseFiles, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    folder = reconfigured(adapter(base_folder, tmp_path / "a"), "adapter_config.json", **settings)
    found = inspect_folder(folder, base)
    assert codes(found) == {DefectCode.NOT_MEASURABLE}
    assert said in message(found, DefectCode.NOT_MEASURABLE)
    assert found.measurements == ()
    assert len(found.checkpoint.files) == len([p for p in folder.iterdir() if p.is_file()])


def test_an_adapter_for_other_shapes_is_for_another_base(base: BaseFiles, tmp_path: Path) -> None:
    config = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    GPT2LMHeadModel(GPT2Config(**config)).save_pretrained(tmp_path / "gpt2")
    folder = adapter(tmp_path / "gpt2", tmp_path / "a", target_modules=["c_attn"], fan_in_fan_out=True)
    found = inspect_folder(folder, base)
    assert codes(found) == {DefectCode.BASE_MISMATCH}
    assert "c_attn" in message(found, DefectCode.BASE_MISMATCH)


def test_an_adapter_of_another_width_is_for_another_base(base_folder: Path, base: BaseFiles, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "a", target_modules=["q_proj"])
    found = load_file(folder / "adapter_model.safetensors")
    wide = {n: torch.ones(4, 24) if "lora_A" in n else t for n, t in found.items()}
    save_file(wide, folder / "adapter_model.safetensors")
    assert "[16, 24]" in message(inspect_folder(folder, base), DefectCode.BASE_MISMATCH)
    with pytest.raises(WrongBase):
        LoraDelta.open(locate(folder), open_weights(base_folder))


def test_half_a_pair_of_factors_is_refused(base_folder: Path, base: BaseFiles, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "a")
    found = load_file(folder / "adapter_model.safetensors")
    save_file({n: t for n, t in found.items() if "lora_B" not in n}, folder / "adapter_model.safetensors")
    assert "factors A and B" in message(inspect_folder(folder, base), DefectCode.NOT_MEASURABLE)


def test_nan_in_a_factor_is_found_with_and_without_a_base(base_folder: Path, base: BaseFiles, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "a")
    found = load_file(folder / "adapter_model.safetensors")
    next(t for n, t in found.items() if "lora_B" in n)[0, 0] = math.nan
    save_file(found, folder / "adapter_model.safetensors")
    for result in (inspect_folder(folder, base), inspect_folder(folder)):
        assert codes(result) == {DefectCode.NON_FINITE_WEIGHTS}
        assert result.measurements == ()


def test_an_adapter_on_tied_weights_would_untie_them(tmp_path: Path) -> None:
    tied = model_folder(tmp_path / "tied")
    folder = adapter(tied, tmp_path / "a", target_modules=["embed_tokens"])
    found = inspect_folder(folder, as_base(tied))
    assert EMBEDDING in message(found, DefectCode.NOT_MEASURABLE)
    with pytest.raises(NotMeasurable):
        LoraDelta.open(locate(folder), open_weights(tied))


def test_base_weights_shipped_with_an_adapter_must_be_the_bases(
    base_folder: Path, base: BaseFiles, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    adapter(base_folder, tree / "peft")
    (tree / "MLmodel").write_text("flavors: {transformers: {model_binary: model, peft_adaptor: peft}}")
    copied(base_folder, tree / "model")
    assert inspect_folder(tree, base).defects == ()
    other = tensors(tree / "model")
    other[Q] = other[Q] * 1.5
    save_file(other, tree / "model" / "model.safetensors")
    found = inspect_folder(tree, base)
    assert codes(found) == {DefectCode.BASE_MISMATCH}
    assert Q in message(found, DefectCode.BASE_MISMATCH)


def test_the_adapters_own_word_on_its_base_is_told(base_folder: Path, tmp_path: Path) -> None:
    folder = adapter(base_folder, tmp_path / "a")
    reconfigured(folder, "adapter_config.json", base_model_name_or_path="org/base", revision="abc")
    hints = inspect_folder(folder).hints
    assert (hints.adapter_base, hints.adapter_revision) == ("org/base", "abc")


@pytest.mark.parametrize("magnitude", [0.0, 1.0, math.nan])
def test_an_output_of_no_length_has_no_direction_for_dora_to_scale(
    base_folder: Path, tmp_path: Path, magnitude: float
) -> None:
    still = copied(base_folder, tmp_path / "still")
    weights = tensors(still)
    weights[Q][3] = 0
    save_file(weights, still / "model.safetensors")
    folder = adapter(still, tmp_path / "a", use_dora=True)
    found = load_file(folder / "adapter_model.safetensors")
    for name, tensor in found.items():
        if "lora_B" in name:
            tensor[3] = 0
        if "magnitude" in name:
            tensor[3] = magnitude
    save_file(found, folder / "adapter_model.safetensors")
    result = inspect_folder(folder, as_base(still))
    assert codes(result) == {DefectCode.NON_FINITE_WEIGHTS}
    assert result.measurements == ()
