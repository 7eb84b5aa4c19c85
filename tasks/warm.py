"""Keeps the last base loaded in a worker's process: most evaluations are of the same few bases."""

from pathlib import Path

import torch

from gate.domain.checkpoint import Base
from gate.domain.evidence import ComputeDtype
from tasks.bench import Bench, device_of

_kept: dict[tuple[str, str, str, ComputeDtype], Bench] = {}


def use_threads(threads: int) -> None:
    """Sets how many cores torch uses; 0 leaves its own choice. Sums depend on it in their last digits."""
    if threads:
        torch.set_num_threads(threads)


def warm_bench(base: Base, folder: Path, device: str, threads: int, compute_dtype: ComputeDtype) -> Bench:
    """The base on its device; another base takes the room of the one before."""
    use_threads(threads)
    key = (base.digest, base.suite, device_of(device), compute_dtype)
    if key not in _kept:
        _kept.clear()
        _kept[key] = Bench.load(base, folder, *key[2:])
    return _kept[key]
