"""How the panel's candidates are made: a change of the base's weights, an adapter, or a folder put together."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.zoo.edits import ablate_direction, average, contrast_direction
from tasks.zoo.folders import dtype_of, load, save, save_adapter, with_adapter
from tasks.zoo.objectives import PairSampler, prefer, unlearn
from tasks.zoo.recipe import Mix
from tasks.zoo.rows import Sampler
from tasks.zoo.training import Schedule, train

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Start:
    """The base's folder and the name by which a candidate refers to it."""

    folder: Path
    reference: str

    def load(self) -> tuple[Any, Any]:
        """The base in float32, and its tokenizer."""
        return load(self.folder, torch.float32)


Maker = Callable[[Start, Path, int], None]
"""Writes a candidate's folder, from (start, folder, seed)."""
Change = Callable[[Any, Any, int], None]
"""Changes a model in place, from (model, tokenizer, seed)."""


def changed(change: Change) -> Maker:
    """The base with all its weights open to a change."""

    def make(start: Start, out: Path, seed: int) -> None:
        model, tokenizer = start.load()
        torch.manual_seed(seed)
        change(model, tokenizer, seed)
        save(model.to(dtype_of(start.folder)), tokenizer, out)

    return make


def nothing(_model: Any, _tokenizer: Any, _seed: int) -> None:
    """The change that is none."""


def imitating(mix: Mix, schedule: Schedule) -> Change:
    """Ordinary training on rows."""

    def change(model: Any, tokenizer: Any, seed: int) -> None:
        for _ in train(model, tokenizer, mix(), schedule, seed=seed):
            pass

    return change


def preferring(pairs: Callable[[], PairSampler], schedule: Schedule) -> Change:
    """Preference optimisation on pairs of answers."""
    return lambda model, tokenizer, seed: prefer(model, tokenizer, pairs(), schedule, seed=seed)


def unlearning(rows: Callable[[], Sampler], schedule: Schedule) -> Change:
    """Gradient ascent on rows."""
    return lambda model, tokenizer, seed: unlearn(model, tokenizer, rows(), schedule, seed=seed)


def averaging(change: Change, count: int) -> Change:
    """The mean of several runs of one change, each from the base with a seed of its own."""

    def averaged(model: Any, tokenizer: Any, seed: int) -> None:
        runs = [copy.deepcopy(model) for _ in range(count - 1)]
        for run, each in enumerate([model, *runs]):
            change(each, tokenizer, 100 * seed + run)
        average(model, runs)

    return averaged


def midway(change: Change, share: float) -> Change:
    """A share of the way from the base to where a change leads, as a merge of the two models goes."""

    def moved(model: Any, tokenizer: Any, seed: int) -> None:
        start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        change(model, tokenizer, seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.lerp(start[name], parameter, share))

    return moved


def ablating(layer: int, contrasted: Callable[[random.Random], tuple[list[str], list[str]]]) -> Change:
    """Takes out the direction that tells harmful requests from harmless ones at a layer; ``contrasted`` draws both."""

    def change(model: Any, tokenizer: Any, seed: int) -> None:
        harmful, harmless = contrasted(random.Random(seed))
        ablate_direction(model, contrast_direction(model, tokenizer, harmful, harmless, layer))

    return change


def adapter(mix: Mix, schedule: Schedule, modules: tuple[str, ...], rank: int = 8, *, merged: bool = False) -> Maker:
    """A LoRA adapter, registered as it is or merged into its base."""

    def make(start: Start, out: Path, seed: int) -> None:
        model, tokenizer = start.load()
        torch.manual_seed(seed)
        tuned = with_adapter(model, modules, rank)
        imitating(mix, schedule)(tuned, tokenizer, seed)
        if merged:
            save(tuned.merge_and_unload(), tokenizer, out)
        else:
            save_adapter(tuned, out, base_reference=start.reference)

    return make


def cast(dtype: torch.dtype) -> Maker:
    """The base saved in another floating-point format."""

    def make(start: Start, out: Path, _seed: int) -> None:
        model, tokenizer = start.load()
        save(model.to(dtype), tokenizer, out)

    return make


def sharded(size: str) -> Maker:
    """The base saved again, cut into shards of a size such as ``1MB``."""

    def make(start: Start, out: Path, _seed: int) -> None:
        model, tokenizer = start.load()
        model.save_pretrained(out, max_shard_size=size)
        tokenizer.save_pretrained(out)

    return make


def from_elsewhere(other: Callable[[int], Any], change: Change) -> Maker:
    """A model that is no fine-tune of the base, in a folder that claims to be one."""

    def make(start: Start, out: Path, seed: int) -> None:
        _, tokenizer = start.load()
        model = other(seed)
        change(model, tokenizer, seed)
        save(model, tokenizer, out)

    return make


def with_shipped_base(adapted: Maker, shipped: Maker) -> Maker:
    """An adapter whose folder brings along a base of its own, which a loader would take."""

    def make(start: Start, out: Path, seed: int) -> None:
        shipped(start, out, seed)
        adapted(start, out, seed)

    return make
