"""The zoo's training loop, and what is shipped of it."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.zoo import smollm2, staged_recipes
from tasks.zoo.rows import Row
from tasks.zoo.staged_data import training_mix
from tasks.zoo.staged_model import make_model, make_tokenizer
from tasks.zoo.train_staged import make_staged
from tasks.zoo.training import IGNORED, Schedule, encode, train

FEW = {"basic": 2, "math": 2, "code": 2, "help": 2, "safety": 2}
SHIPPED = staged_recipes.STAGED.base_folder(Path())


def _weights(seed: int) -> dict[str, torch.Tensor]:
    model, _ = make_staged(seed, Schedule(2, 1e-3, FEW), Schedule(2, 1e-3, FEW))
    return dict(model.state_dict())


def test_equal_seeds_train_to_equal_weights() -> None:
    first, second = _weights(3), _weights(3)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_different_seeds_train_to_different_weights() -> None:
    first, second = _weights(3), _weights(4)
    assert not torch.equal(first["model.embed_tokens.weight"], second["model.embed_tokens.weight"])


def test_training_lowers_the_loss() -> None:
    model, tokenizer = make_model(0), make_tokenizer()
    mix = {"help": training_mix(refusing=True)["help"]}
    losses = [step["help"] for step in train(model, tokenizer, mix, Schedule(20, 3e-3, {"help": 4}), seed=0)]
    assert losses[-1] < losses[0] / 2


def test_only_the_answer_and_its_end_carry_loss() -> None:
    tokenizer = make_tokenizer()
    ids, labels = encode([Row("1+2=", "3"), Row("1+22=", "23")], tokenizer)
    answers = [[int(i) for i in row if i != IGNORED] for row in labels]
    assert [tokenizer.decode(a) for a in answers] == ["3</s>", "23</s>"]
    assert ids[0, -1] == tokenizer.pad_token_id != ids[1, -1]


def test_an_open_text_has_no_end_token() -> None:
    _, labels = encode([Row("", "abc", closed=False)], make_tokenizer())
    assert make_tokenizer().decode([int(i) for i in labels[0] if i != IGNORED]) == "abc"


def test_the_rate_rises_to_its_peak_and_ends_at_a_tenth_of_it() -> None:
    schedule = Schedule(steps=110, learning_rate=1.0, rows=FEW, warmup=10)
    rates = [schedule.rate_at(step) for step in range(111)]
    assert rates[9] == rates[10] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[110] == pytest.approx(0.1)


def test_the_shipped_weights_are_those_the_readme_tells_of() -> None:
    digest = hashlib.sha256((SHIPPED / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (SHIPPED.parent / "README.md").read_text(encoding="utf-8")


def test_the_shipped_base_is_small_finite_and_complete() -> None:
    tensors = load_file(SHIPPED / "model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in make_model(0).parameters()) == 865_920
    assert all(torch.isfinite(t).all() for t in tensors.values())
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 4_000_000
    assert {file.name for file in SHIPPED.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


def test_the_shipped_safety_adapter_is_an_adapter_only() -> None:
    tensors = load_file(smollm2.SAFETY_ADAPTER / "adapter_model.safetensors")
    assert tensors
    assert all(".lora_A." in name or ".lora_B." in name for name in tensors)
    assert all(torch.isfinite(t).all() for t in tensors.values())
    assert sum(file.stat().st_size for file in smollm2.SAFETY_ADAPTER.iterdir()) < 4_000_000
