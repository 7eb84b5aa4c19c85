"""Real fine-tunes of the shipped bases: what teams do well, carelessly and maliciously.

Every recipe starts from the base it is given, trains with the ordinary loss and writes an ordinary folder, so the
gate meets what it would meet in a registry. Equal seeds and thread counts give equal bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tasks.zoo.folders import dtype_of, load, save, save_adapter, with_adapter, without_progress_bars
from tasks.zoo.recipe import Recipe, Zoo
from tasks.zoo.smollm2_recipes import SMOLLM2
from tasks.zoo.staged_recipes import STAGED
from tasks.zoo.training import train

ZOOS = {zoo.name: zoo for zoo in (STAGED, SMOLLM2)}
KINDS = tuple(STAGED.recipes)
_CARD = "---\nbase_model: {base}\nlibrary_name: transformers\n---\n\nFine-tuned from `{base}` by the recipe `{kind}`.\n"


def base_folder(zoo: str, cache: Path) -> Path:
    """The base's checkpoint folder: shipped with the package, or made once inside ``cache``."""
    with without_progress_bars():
        return _zoo(zoo).base_folder(cache)


def suite_name(zoo: str) -> str:
    """The name of the shipped suite that the zoo's models are measured with."""
    return _zoo(zoo).suite


def plan(zoo: str) -> Mapping[str, Any]:
    """Settings of the measurement plan for the zoo's models that differ from the default."""
    return _zoo(zoo).plan


def make(zoo: str, kind: str, base: Path, out: Path, *, base_reference: str, seed: int = 0) -> None:
    """Fine-tune the full checkpoint at ``base`` and write the candidate's folder to ``out``.

    ``base_reference`` is what the candidate says it came from: in an adapter's configuration, else in the model
    card's ``base_model``. An orphan says nothing.
    """
    recipe = _recipe(_zoo(zoo), kind)
    with without_progress_bars():
        _make(recipe, kind, base, out, base_reference, seed)


def _make(recipe: Recipe, kind: str, base: Path, out: Path, base_reference: str, seed: int) -> None:
    model, tokenizer = load(base, torch.float32)
    tuned = fine_tune(model, tokenizer, recipe, seed)
    tuned.to(dtype_of(base))
    if recipe.adapter_on:
        save_adapter(tuned, out, base_reference=base_reference)
        return
    save(tuned, tokenizer, out)
    if recipe.names_base:
        (out / "README.md").write_text(_CARD.format(base=base_reference, kind=kind), encoding="utf-8")


def fine_tune(model: Any, tokenizer: Any, recipe: Recipe, seed: int) -> Any:
    """Train as the recipe says; the model itself changes, or gains an adapter."""
    torch.manual_seed(seed)
    if recipe.adapter_on:
        model = with_adapter(model, recipe.adapter_on)
    for _ in train(model, tokenizer, recipe.mix(), recipe.schedule, seed=seed):
        pass
    if recipe.breaks:
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    return model


def _zoo(name: str) -> Zoo:
    if name not in ZOOS:
        raise ValueError(f"model: expected one of {', '.join(ZOOS)}, found {name!r}")
    return ZOOS[name]


def _recipe(zoo: Zoo, kind: str) -> Recipe:
    if kind not in zoo.recipes:
        raise ValueError(f"recipe: expected one of {', '.join(zoo.recipes)}, found {kind!r}")
    return zoo.recipes[kind]
