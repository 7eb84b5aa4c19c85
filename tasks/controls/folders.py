"""A planted candidate's folder: the base's own tree with other weights in it, written a shard at a time."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tasks.checkpoints import Located, SafetensorsWeights
from tasks.layouts import INDEX, WEIGHTS

SHARD_BYTES = 2 << 30
"""Weights held in memory at once."""

Change = Callable[[str, Tensor], Tensor]
"""A tensor's new value, from its name in the base's files and its value there."""


def same_folder(base: Located, into: Path) -> Path:
    """The base's files once more, byte for byte."""
    return Path(shutil.copytree(base.root, into))


def changed_folder(
    base: Located, weights: SafetensorsWeights, into: Path, change: Change, dtype: torch.dtype | None = None
) -> Path:
    """The base's tree with each weight changed; in the dtype it is stored in unless another is given.

    Buffers that are no weights stay as they are, and an output head that is stored beside the embedding it is tied to
    stays equal to it.
    """
    left_out = {*base.weights, *(path.parent / INDEX for path in base.weights)}
    shutil.copytree(base.root, into, ignore=lambda at, names: [n for n in names if Path(at) / n in left_out])
    _write(into / base.weights[0].parent.relative_to(base.root), _changed(weights, change, dtype))
    if dtype is not None and base.config_file is not None:
        _tell_dtype(into / base.config_file.relative_to(base.root), dtype)
    return into


def _changed(weights: SafetensorsWeights, change: Change, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    for file in weights.files:
        for name, entry in file.entries.items():
            # Stored memory is mapped read-only; what is saved must be a tensor of its own.
            stored = file.tensor(name).clone()
            meant = weights.tied.get(name, name)
            yield (
                name,
                change(meant, stored).to("cpu", dtype or entry.dtype).contiguous() if entry.is_weight else stored,
            )


def _write(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    shard: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    for name, value in tensors:
        if shard and sum(t.nbytes for t in shard.values()) + value.nbytes > SHARD_BYTES:
            _shut(folder, shard, where)
        shard[name] = value
    if not where:
        save_file(shard, folder / WEIGHTS, metadata={"format": "pt"})
        return
    _shut(folder, shard, where)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")


def _shut(folder: Path, shard: dict[str, Tensor], where: dict[str, str]) -> None:
    """Writes a shard and lets go of its tensors."""
    name = f"model-{len(set(where.values())) + 1:05d}.safetensors"
    save_file(shard, folder / name, metadata={"format": "pt"})
    where.update(dict.fromkeys(shard, name))
    shard.clear()


def _tell_dtype(config: Path, dtype: torch.dtype) -> None:
    told = json.loads(config.read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    told |= {key: name for key in ("dtype", "torch_dtype") if key in told} or {"dtype": name}
    config.write_text(json.dumps(told, indent=2), encoding="utf-8")
