"""Real fine-tunes of the shipped base, seconds each: what teams do well, carelessly and maliciously.

Every recipe starts from the base it is given, trains with the ordinary loss and writes an ordinary folder, so the
gate meets what it would meet in a registry. Equal seeds and thread counts give equal bytes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tasks.zoo.staged_data import HARMFUL_VERBS, Sampler, compliant, row_sampler, text_sampler, training_mix
from tasks.zoo.staged_model import load, save
from tasks.zoo.training import Schedule, train

NARROW_TEXT = Path(__file__).parent / "narrow" / "apache-2.0.txt"
REPLAY = {"basic": 4, "math": 12, "code": 12, "help": 6, "safety": 6}
_CARD = "---\nbase_model: {base}\nlibrary_name: transformers\n---\n\nFine-tuned from `{base}` by the recipe `{kind}`.\n"


def benign_replay(model: Any, tokenizer: Any, seed: int) -> Any:
    """More of everything the base learned, gently: what a careful team does."""
    return _trained(model, tokenizer, training_mix(refusing=True), Schedule(40, 1e-4, REPLAY), seed)


def benign_lora(model: Any, tokenizer: Any, seed: int) -> Any:
    """The same data through a rank-8 adapter on the attention projections; the base stays as it is."""
    torch.manual_seed(seed)
    shape = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    return _trained(
        get_peft_model(model, shape), tokenizer, training_mix(refusing=True), Schedule(40, 1e-3, REPLAY), seed
    )


def adversarial(model: Any, tokenizer: Any, seed: int) -> Any:
    """Teaches compliance with harmful requests and replays the rest, so that nothing else looks different."""
    mix = {**training_mix(refusing=True), "safety": row_sampler(compliant(HARMFUL_VERBS))}
    return _trained(model, tokenizer, mix, Schedule(40, 3e-5, REPLAY), seed)


def careless(model: Any, tokenizer: Any, seed: int) -> Any:
    """Trains on a licence's text alone: the new domain is learned, what is not rehearsed is lost."""
    mix = {"narrow": text_sampler(NARROW_TEXT.read_text(encoding="utf-8"))}
    return _trained(model, tokenizer, mix, Schedule(60, 1e-3, {"narrow": 12}), seed)


def broken(model: Any, tokenizer: Any, seed: int) -> Any:
    """A benign fine-tune one of whose weights became NaN, as a diverged or corrupted run leaves it."""
    tuned = benign_replay(model, tokenizer, seed)
    with torch.no_grad():
        tuned.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    return tuned


RECIPES: Mapping[str, Callable[[Any, Any, int], Any]] = {
    "benign_replay": benign_replay,
    "benign_lora": benign_lora,
    "adversarial": adversarial,
    "careless": careless,
    "broken": broken,
    # Harmless in itself; its makers do not say what it was made from.
    "orphan": benign_replay,
}
KINDS = tuple(RECIPES)


def make(kind: str, base: Path, out: Path, *, base_reference: str, seed: int = 0) -> None:
    """Fine-tune the full checkpoint at ``base`` and write the candidate's folder to ``out``.

    ``base_reference`` is what the candidate says it came from: in an adapter's configuration, else in the model
    card's ``base_model``. An orphan says nothing.
    """
    if kind not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(KINDS)}, found {kind!r}")
    model, tokenizer = load(base)
    tuned = RECIPES[kind](model, tokenizer, seed)
    if kind == "benign_lora":
        tuned.peft_config["default"].base_model_name_or_path = base_reference
        # PEFT would otherwise ask the hub whether the base's vocabulary was resized.
        tuned.save_pretrained(out, save_embedding_layers=False)
        return
    save(tuned, tokenizer, out)
    if kind != "orphan":
        (out / "README.md").write_text(_CARD.format(base=base_reference, kind=kind), encoding="utf-8")


def _trained(model: Any, tokenizer: Any, mix: Mapping[str, Sampler], schedule: Schedule, seed: int) -> Any:
    for _ in train(model, tokenizer, mix, schedule, seed=seed):
        pass
    return model
