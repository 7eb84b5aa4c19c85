"""Our one-pass scores against transformers' own ``generate``, on the shipped model, whole and damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_language import tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

import tasks.zoo
from tasks.measurements.benchmark import Benchmark, Item, answer_loss, score_items
from tasks.measurements.perturbation import Snapshot, perturb
from tasks.suites import load_suite

STAGED = Path(tasks.zoo.__file__).parent / "staged"


def generated(model: torch.nn.Module, tokenizer: object, item: Item) -> float:
    given = tokenizer(item.prompt, return_tensors="pt", return_token_type_ids=False)
    written = model.generate(
        **given, do_sample=False, max_new_tokens=len(item.answer) + 4, pad_token_id=tokenizer.pad_token_id
    )
    text = tokenizer.decode(written[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return float(text.strip().split("\n")[0].strip() == item.answer.strip())


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_exact_match_is_what_generate_would_have_said(sigma: float) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(STAGED), AutoTokenizer.from_pretrained(STAGED)
    perturb(model, Snapshot.of(model), sigma, seed=0, draw=1)
    ours, theirs = [], []
    for benchmark in load_suite("staged").benchmarks:
        if benchmark.scorer == "exact":
            places = range(0, len(benchmark.items), 12)
            ours += score_items(model, tokenizer, benchmark, places).tolist()
            theirs += [generated(model, tokenizer, benchmark.items[i]) for i in places]
    assert ours == theirs
    assert 0 < np.mean(ours) <= 1
    assert (np.mean(ours) < 0.95) == (sigma > 0)


@torch.no_grad()
def test_learned_positions_do_not_feel_the_padding() -> None:
    config = GPT2Config(
        vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=24, bos_token_id=None, eos_token_id=0, pad_token_id=1
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    model.tie_weights()
    items = tuple(Item(prompt, answer="word") for prompt in ("a", "what is it", "how do i open it"))
    benchmark = Benchmark("c", "exact", items, 0.1)
    alone = [float(answer_loss(model, tiny_tokenizer(), benchmark, [i])) for i in range(3)]
    assert float(answer_loss(model, tiny_tokenizer(), benchmark, range(3))) == pytest.approx(np.mean(alone), rel=1e-5)
