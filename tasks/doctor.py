"""The bench's part of ``basin-gate doctor``: is there a device, and does what will be measured fit into it?"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from gate.adapters.database import ledger_url, missing_file
from gate.bootstrap import build_ledger
from gate.domain.checkpoint import Base
from gate.domain.examination import Check, Finding, ok, problem, unchecked
from gate.settings import Settings
from tasks.bench import device_of

COPIES = 3.0
"""How many times the weights are in memory at most: themselves, their gradient, and the direction of an ascent."""
WORK_BYTES = 1_000_000_000
"""Room beside them for activations and the runtime."""
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def checks(settings: Settings) -> Iterator[Check]:
    """The checks of the machine that measures."""
    yield Check("device", lambda: device(settings))


def device(settings: Settings) -> Iterator[Finding]:
    """A device that is there, and holds the largest onboarded base."""
    try:
        place = device_of(settings.device)
        torch.zeros(1, device=place)
        total = memory(place)
    except (RuntimeError, ValueError, AssertionError) as error:
        fix = "set GATE_DEVICE to auto, cpu or a device of this machine; for CUDA, check the driver and torch's build"
        yield problem("device", f"a torch device {settings.device!r}", str(error).splitlines()[0], fix)
        return
    yield ok("device", f"{place} with {total / 1e9:.1f} GB")
    largest = max(_bases(settings), key=needed, default=None)
    yield fits(largest, total) if largest else ok("device memory", "no base is onboarded yet")


def _bases(settings: Settings) -> Sequence[Base]:
    if missing_file(ledger_url(settings.database_url, settings.state_dir)) is not None:
        return ()
    ledger = build_ledger(settings)
    try:
        return ledger.bases()
    finally:
        ledger.close()


def needed(base: Base) -> float:
    """Bytes of device memory that measuring against a base takes at most, estimated from its size."""
    checkpoint = base.checkpoint
    return COPIES * checkpoint.parameters * BYTES.get(checkpoint.dtype, 4) + WORK_BYTES


def fits(base: Base, total: float) -> Finding:
    """Whether a device of ``total`` bytes holds what measuring against the base takes."""
    need = f"{needed(base) / 1e9:.1f} GB for base {base.name}"
    if base.checkpoint.parameters == 0:
        fix = f"onboard it again: basin-gate base add {base.source} --suite {base.suite}"
        return unchecked("device memory", "a base whose size is known", f"{base.name} without one", fix)
    if needed(base) > total:
        fix = "run the gpu queue's worker where there is more memory (GATE_DEVICE), or onboard a smaller base"
        return problem("device memory", need, f"{total / 1e9:.1f} GB", fix)
    return ok("device memory", f"{need} of {total / 1e9:.1f} GB")


def memory(place: str) -> float:
    """Bytes of memory of a device; of this machine (or its container) for the CPU and what shares its memory."""
    if place.startswith("cuda"):
        return float(torch.cuda.mem_get_info(place)[1])
    here = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(here, float(limit)) if limit.isdigit() else here
