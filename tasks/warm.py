"""Keeps the last base loaded in a worker's process: most evaluations are of the same few bases."""

from pathlib import Path

import torch

from gate.domain.checkpoint import Base
from gate.domain.evidence import ComputeDtype
from tasks.bench import Bench
from tasks.suites import load_suite

_kept: dict[tuple[str, str, str, ComputeDtype], Bench] = {}


def use_threads(threads: int) -> None:
    """Sets how many cores torch uses; 0 leaves its own choice. Sums depend on it in their last digits."""
    if threads:
        torch.set_num_threads(threads)


def warm_bench(
    base: Base, folder: Path, device: str, threads: int, compute_dtype: ComputeDtype, suite_digest: str | None = None
) -> Bench:
    """The base on its device; another base takes the room of the one before.

    It asks its suite as that is now, or with ``suite_digest`` as it was then: hidden items change with the period, and
    the files may have been changed. Raises `InvalidInput` where they were changed since then.
    """
    use_threads(threads)
    key = (base.digest, base.suite, device, compute_dtype)
    if key not in _kept:
        _kept.clear()
        _kept[key] = Bench.load(base, folder, *key[2:])
    _kept[key].ask(load_suite(base.suite, like=suite_digest))
    return _kept[key]
