"""Claims about weights that other files of the same tree make, held against the weights themselves."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from gate.domain.evidence import Defect, DefectCode
from tasks.file_reading import Reader
from tasks.layouts import INDEX, Located
from tasks.safetensors_file import SafetensorsFile
from tasks.sweep import runs, shown
from tasks.weights import SafetensorsWeights

WRAPPED = ".base_layer."


def index_defects(found: Located, weights: SafetensorsWeights) -> Iterator[Defect]:
    """Defects where the shards' index names other tensors than the shards have."""
    if not found.index:
        return
    stored = {name: file.path.name for file in weights.files for name in file.entries}
    absent = sorted(name for name, file in found.index.items() if stored.get(name) != Path(file).name)
    unlisted = sorted(set(stored) - set(found.index))
    advice = "save the sharded model again and upload every shard"
    if absent:
        message = f"{INDEX}: expected each tensor in the shard it names, missing there: {shown(absent)}; {advice}"
        yield Defect(code=DefectCode.MISSING_TENSORS, message=message)
    if unlisted:
        message = f"{INDEX}: expected every tensor of the shards, found unlisted: {shown(unlisted)}; {advice}"
        yield Defect(code=DefectCode.EXTRA_TENSORS, message=message)


def shipped_base_defects(
    found: Located, base: SafetensorsWeights, reader: Callable[[Path], Reader]
) -> Iterator[Defect]:
    """Defects of the base weights that an adapter's tree brings along: not the real base, or not loadable.

    MLflow writes the weights of a PEFT model with the wrapper's names (``q_proj.base_layer.weight``). They are read
    here as what they mean, but MLflow's own loader finds no ``q_proj.weight`` and fills it with random numbers.
    """
    if not found.shipped_base:
        return
    shipped = SafetensorsWeights(tuple(SafetensorsFile(reader(path)) for path in found.shipped_base))
    names = [name for name in shipped.names() if ".lora_" not in name]
    differing = [name for name in names if not _same(shipped, base, name)]
    if differing:
        message = (
            f"expected the shipped base weights to be the base's, found others: {shown(differing)}; the adapter was "
            "trained on another base: name it in the version's gate.base tag, or log the adapter without base weights"
        )
        yield Defect(code=DefectCode.BASE_MISMATCH, message=message)
    wrapped = [name for name in names if WRAPPED in name]
    if wrapped:
        message = (
            f"expected tensors that a loader knows in model/, found {shown(wrapped)}: MLflow loads this tree with "
            "random numbers in their place (mlflow issue 23761), so what it serves cannot be measured; log the adapter "
            "with base_model_path=, or merge it and log the merged model"
        )
        yield Defect(code=DefectCode.NOT_MEASURABLE, message=message)


def _same(shipped: SafetensorsWeights, base: SafetensorsWeights, name: str) -> bool:
    real = name.replace(WRAPPED, ".")
    if real not in base.names() and real not in base.tied:
        return False
    ours, theirs = base.entry(real), shipped.entry(name)
    return ours.shape == theirs.shape and all(
        torch.equal(base.flat(real, *run).float(), shipped.flat(name, *run).float()) for run in runs(ours.numel)
    )
