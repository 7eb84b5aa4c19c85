"""Checkpoint folders on disk, real files of a tiny random Llama, and the ways to spoil them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_language import tiny_llama, tiny_tokenizer
from torch import Tensor

from gate.domain.evidence import DefectCode
from tasks.checkpoints import Located, SafetensorsWeights, locate
from tasks.static_stage import BaseFiles, StaticResult, inspect_folder

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def model_folder(folder: Path, seed: int = 0, **choices: Any) -> Path:
    """A folder as ``save_pretrained`` writes it: weights, configuration, tokenizer."""
    tiny_llama(seed, **choices).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def as_base(folder: Path) -> BaseFiles:
    """The folder as an onboarded base: located, its digests attested now."""
    return locate(folder), inspect_folder(folder).checkpoint


def copied(folder: Path, to: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(folder, to))


def tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's one weights file."""
    return load_file(folder / "model.safetensors")


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor] | None]) -> Path:
    """The folder with its tensors changed in place, or replaced by what ``change`` returns."""
    found = tensors(folder)
    save_file(dict(change(found) or found), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reconfigured(folder: Path, name: str = "config.json", **settings: Any) -> Path:
    """The folder with settings of a JSON file changed."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def sharded(folder: Path, parts: int) -> Path:
    """The folder with its weights cut into shards, in an order other than the single file's."""
    found = tensors(folder)
    names = sorted(found, key=lambda name: name[::-1])
    index = {}
    for part in range(parts):
        file = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        mine = names[part::parts]
        save_file({name: found[name] for name in mine}, folder / file)
        index.update(dict.fromkeys(mine, file))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def open_weights(folder: Path) -> SafetensorsWeights:
    """The folder's weights."""
    return SafetensorsWeights.open(locate(folder))


def codes(found: StaticResult | Located) -> set[DefectCode]:
    """The kinds of defects found."""
    return {defect.code for defect in found.defects}


def message(found: StaticResult | Located, code: DefectCode) -> str:
    """The one defect's message of that kind."""
    (defect,) = [d for d in found.defects if d.code is code]
    return defect.message


def safetensors_bytes(header: Any, data: bytes) -> bytes:
    """A safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def nudge(found: dict[str, Tensor], name: str = Q, by: float = 0.25) -> None:
    """Adds a constant to one tensor."""
    found[name] = found[name] + torch.tensor(by, dtype=found[name].dtype)
