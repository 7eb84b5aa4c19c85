"""Every kind of decoder, in every way it is saved: what is measured of it is what transformers and PEFT make of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from checkpoint_folders import as_base
from safetensors.torch import load_file, save_file
from tiny_language import tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from gate.domain.evidence import Name
from tasks.checkpoints import SafetensorsWeights, load_model, locate, open_delta
from tasks.measurements.perturbation import Moved
from tasks.static_stage import inspect_folder

SIZES = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 32}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ENDS = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
PROMPT = torch.tensor([[5, 9, 3, 30, 17, 2, 40]])


@dataclass(frozen=True)
class Kind:
    """An architecture: its configuration's class and sizes, whether it ties its embeddings, what adapters adapt."""

    config: str
    sizes: Mapping[str, Any] = field(default_factory=lambda: GROUPED)
    tied: bool = False
    targets: str | list[str] = "all-linear"

    def model(self) -> nn.Module:
        """A random one, its numbers large enough that answers differ."""
        config = getattr(transformers, self.config)(**self.sizes, **ENDS, tie_word_embeddings=self.tied)
        made = AutoModelForCausalLM.from_config(config)
        generator = torch.Generator().manual_seed(1)
        for parameter in made.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        made.tie_weights()
        return made.eval()


KINDS = {
    "llama": Kind("LlamaConfig"),
    "llama tied": Kind("LlamaConfig", tied=True),
    "qwen2": Kind("Qwen2Config", tied=True),
    "qwen3": Kind("Qwen3Config", GROUPED | {"head_dim": 8}),
    "mistral": Kind("MistralConfig"),
    "gemma": Kind("GemmaConfig", GROUPED | {"head_dim": 8}, tied=True),
    "gemma2": Kind("Gemma2Config", GROUPED | {"head_dim": 8}, tied=True),
    "gemma3": Kind("Gemma3TextConfig", GROUPED | {"head_dim": 8}, tied=True),
    "gpt2": Kind(
        "GPT2Config", {"vocab_size": 48, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}, tied=True
    ),
    "gpt-neox": Kind("GPTNeoXConfig", SIZES | {"max_position_embeddings": 32}),
    "phi": Kind("PhiConfig", SIZES | {"max_position_embeddings": 32}),
    "phi3": Kind("Phi3Config"),
    "mixtral": Kind("MixtralConfig", GROUPED | {"num_local_experts": 4}, targets=["q_proj", "o_proj"]),
    "qwen2-moe": Kind(
        "Qwen2MoeConfig",
        GROUPED | EXPERTS | {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 1},
        targets=["q_proj", "o_proj"],
    ),
    "qwen3-moe": Kind("Qwen3MoeConfig", GROUPED | EXPERTS | {"head_dim": 8}, targets=["q_proj", "o_proj"]),
    "olmoe": Kind("OlmoeConfig", GROUPED | {"num_experts": 4, "num_experts_per_tok": 2}, targets=["v_proj"]),
}
TIED = {name: kind for name, kind in KINDS.items() if kind.tied}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def saved(model: nn.Module, folder: Path, **choices: Any) -> Path:
    model.save_pretrained(folder, **choices)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def moved(model: nn.Module, size: float = 0.02) -> nn.Module:
    """The model after an update of every one of its parameters."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        step = torch.randn(parameter.shape, generator=generator) * size
        parameter.data = (parameter.data.float() + step).to(parameter.dtype)
    return model


@torch.no_grad()
def said(model: nn.Module) -> Tensor:
    return model(PROMPT).logits.float()


def transformers_says(folder: Path) -> Tensor:
    return said(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval())


def distance(ours: nn.Module, theirs: nn.Module) -> float:
    """The norm of the difference of two models' parameters, a tied one counted once."""
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))


def displacement(base: Path, candidate: Path) -> float:
    found = inspect_folder(candidate, as_base(base))
    assert found.defects == ()
    return next(m.estimate.value for m in found.measurements if m.name is Name.DISPLACEMENT_NORM)


@each_kind
def test_a_fine_tunes_displacement_is_that_of_its_parameters_and_it_answers_as_transformers_has_it(
    kind: Kind, tmp_path: Path
) -> None:
    base, candidate = saved(kind.model(), tmp_path / "base"), saved(moved(kind.model()), tmp_path / "candidate")
    assert displacement(base, candidate) == pytest.approx(distance(kind.model(), moved(kind.model())), rel=1e-5)
    expected = transformers_says(candidate)
    loaded, _ = load_model(locate(candidate))
    torch.testing.assert_close(said(loaded), expected)
    with SafetensorsWeights.open(locate(base)) as weights:
        walked, _ = load_model(locate(base), Moved(weights, open_delta(locate(candidate), weights)))
    torch.testing.assert_close(said(walked), expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(expected, transformers_says(base), atol=1e-2)


@pytest.mark.parametrize("kind", TIED.values(), ids=TIED.keys())
@pytest.mark.parametrize("side", ["base", "candidate"])
def test_a_tied_head_that_is_stored_all_the_same_counts_once(kind: Kind, side: str, tmp_path: Path) -> None:
    base, candidate = saved(kind.model(), tmp_path / "base"), saved(moved(kind.model()), tmp_path / "candidate")
    weights = (tmp_path / side) / "model.safetensors"
    tensors = load_file(weights)
    [embedding] = [name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight"))]
    save_file(tensors | {"lm_head.weight": tensors[embedding].clone()}, weights, metadata={"format": "pt"})
    assert displacement(base, candidate) == pytest.approx(distance(kind.model(), moved(kind.model())), rel=1e-5)
    loaded, _ = load_model(locate(candidate))
    torch.testing.assert_close(said(loaded), transformers_says(candidate))


SETTINGS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
}


@each_kind
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_an_adapters_displacement_and_answers_are_those_of_pefts_merge(
    kind: Kind, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = saved(kind.model(), tmp_path / "base")
    fan = {"fan_in_fan_out": kind.config == "GPT2Config"}
    given = peft.LoraConfig(r=4, lora_alpha=8, target_modules=kind.targets, task_type="CAUSAL_LM", **fan, **settings)
    adapted = moved(peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), given), 0.0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * (0.1 if "lora_" in name else 0)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    merged = merged.merge_and_unload().eval()
    expected = distance(AutoModelForCausalLM.from_pretrained(base), merged)
    assert displacement(base, tmp_path / "adapter") == pytest.approx(expected, rel=1e-4)
    with SafetensorsWeights.open(locate(base)) as weights:
        walked, _ = load_model(locate(base), Moved(weights, open_delta(locate(tmp_path / "adapter"), weights)))
    torch.testing.assert_close(said(walked), said(merged), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("which", ["lora_only", "all"])
def test_biases_trained_beside_the_factors_count_as_peft_merges_them(which: str, tmp_path: Path) -> None:
    base = saved(KINDS["qwen2"].model(), tmp_path / "base")
    given = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False, bias=which)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), given)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("bias") and parameter.requires_grad:
                parameter += 0.5
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    expected = distance(AutoModelForCausalLM.from_pretrained(base), adapted.merge_and_unload())
    assert displacement(base, tmp_path / "adapter") == pytest.approx(expected, rel=1e-4)


SAVED: Mapping[str, Callable[[Kind, Path], Path]] = {
    "in shards": lambda kind, out: saved(moved(kind.model()), out, max_shard_size="20KB"),
    "in bfloat16": lambda kind, out: saved(moved(kind.model()).to(torch.bfloat16), out),
    "in float16": lambda kind, out: saved(moved(kind.model()).to(torch.float16), out),
}


@pytest.mark.parametrize("name", ["llama tied", "qwen3", "gpt2", "mixtral"])
@pytest.mark.parametrize("way", SAVED)
def test_however_a_fine_tune_is_saved_it_has_moved_as_far(name: str, way: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    base, candidate = saved(kind.model(), tmp_path / "base"), SAVED[way](kind, tmp_path / "candidate")
    files = list(candidate.glob("*.safetensors"))
    assert (len(files) > 1) == (way == "in shards")
    found = inspect_folder(candidate, as_base(base))
    assert {defect.code.value for defect in found.defects} <= {"dtype_changed"}
    norm = next(m.estimate.value for m in found.measurements if m.name is Name.DISPLACEMENT_NORM)
    assert norm == pytest.approx(distance(kind.model(), moved(kind.model())), rel=0.01)
    loaded, _ = load_model(locate(candidate), dtype=torch.float32)
    expected = said(AutoModelForCausalLM.from_pretrained(candidate, dtype=torch.float32).eval())
    torch.testing.assert_close(said(loaded), expected)


def several(base: Path, folder: Path, **chosen: Any) -> peft.PeftModel:
    """Two adapters over one base, saved as PEFT saves them."""
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM", "init_lora_weights": False}
    found = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "up_proj"], **settings), "style")
    found.add_adapter("facts", peft.LoraConfig(target_modules=["q_proj", "v_proj"], **settings))
    found.add_weighted_adapter(["style", "facts"], [1.0, 0.5], "both", combination_type="cat")
    found.set_adapter("both")
    found.save_pretrained(folder, save_embedding_layers=False, **chosen)
    return found


def test_two_adapters_that_peft_combined_are_measured_as_their_sum(tmp_path: Path) -> None:
    base = saved(KINDS["llama"].model(), tmp_path / "base")
    merged = several(base, tmp_path / "saved", selected_adapters=["both"]).merge_and_unload(adapter_names=["both"])
    expected = distance(AutoModelForCausalLM.from_pretrained(base), merged)
    assert displacement(base, tmp_path / "saved" / "both") == pytest.approx(expected, rel=1e-4)


def test_adapters_beside_each_other_are_not_guessed_at(tmp_path: Path) -> None:
    base = saved(KINDS["llama"].model(), tmp_path / "base")
    several(base, tmp_path / "saved")
    found = inspect_folder(tmp_path / "saved", as_base(base))
    assert {defect.code.value for defect in found.defects} == {"not_measurable"}
    assert "expected one adapter, found 3: both/, facts/, style/" in found.defects[0].message
    assert "add_weighted_adapter" in found.defects[0].message
    assert found.measurements == ()
