"""Keeps the last base loaded in a worker's process: most evaluations are of the same few bases."""

from pathlib import Path

import torch

from gate.domain.checkpoint import Base
from tasks.bench import Bench, device_of

_kept: dict[tuple[str, str, str], Bench] = {}


def warm_bench(base: Base, folder: Path, device: str, threads: int) -> Bench:
    """The base on its device; another base takes the room of the one before."""
    if threads:
        torch.set_num_threads(threads)
    key = (base.digest, base.suite, device_of(device))
    if key not in _kept:
        _kept.clear()
        _kept[key] = Bench.load(base, folder, key[2])
    return _kept[key]
