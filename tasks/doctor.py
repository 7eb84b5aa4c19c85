"""The bench's part of ``basin-gate doctor``: is there a device, and does what will be measured fit into it?"""

from collections.abc import Iterator, Sequence

import torch

from gate.adapters.database import ledger_url, missing_file
from gate.bootstrap import build_ledger
from gate.domain.checkpoint import Base
from gate.domain.errors import NotMeasurable
from gate.domain.examination import Check, Finding, ok, problem, unchecked
from gate.domain.gpu_sizes import GB, GpuSizes, bytes_needed
from gate.settings import Settings
from tasks.placing import devices_of, memory


def checks(settings: Settings) -> Iterator[Check]:
    """The checks of the machine that measures."""
    yield Check("device", lambda: device(settings))


def device(settings: Settings) -> Iterator[Finding]:
    """Devices that are there, and together hold the largest onboarded base."""
    try:
        places = devices_of(settings.device)
        for place in places:
            torch.zeros(1, device=place)
        total = sum(memory(place) for place in places)
    except (RuntimeError, ValueError, AssertionError) as error:
        fix = "set GATE_DEVICE to auto, cpu or a device of this machine; for CUDA, check the driver and torch's build"
        yield problem("device", f"a torch device {settings.device!r}", str(error).splitlines()[0], fix)
        return
    yield ok("device", f"{', '.join(places)} with {total / 1e9:.1f} GB")
    largest = max(_bases(settings), key=bytes_needed, default=None)
    sizes = settings.gpu_sizes()
    if largest is None:
        yield ok("device memory", "no base is onboarded yet")
    else:
        yield placed(largest, sizes) if sizes.gb else fits(largest, total)


def _bases(settings: Settings) -> Sequence[Base]:
    if missing_file(ledger_url(settings.database_url, settings.state_dir)) is not None:
        return ()
    ledger = build_ledger(settings)
    try:
        return ledger.bases()
    finally:
        ledger.close()


def placed(base: Base, sizes: GpuSizes) -> Finding:
    """Whether some GPU worker holds what measuring against the base takes, by the sizes that the settings name."""
    try:
        return ok("device memory", f"{base.name} is measured by the workers of {sizes.queue_for(base)}")
    except NotMeasurable:
        need = f"GPU workers with {bytes_needed(base) / GB:.1f} GB for base {base.name}"
        fix = "add workers of that size and name it in GATE_GPU_MEMORY_GB, or onboard a smaller base"
        return problem("device memory", need, f"{sizes.gb[-1]} GB at most", fix)


def fits(base: Base, total: float) -> Finding:
    """Whether devices of ``total`` bytes together hold what measuring against the base takes."""
    need = f"{bytes_needed(base) / 1e9:.1f} GB for base {base.name}"
    if base.checkpoint.parameters == 0:
        fix = f"onboard it again: basin-gate base add {base.source} --suite {base.suite}"
        return unchecked("device memory", "a base whose size is known", f"{base.name} without one", fix)
    if bytes_needed(base) > total:
        fix = "run the gpu queue's worker where there is more memory (GATE_DEVICE), or onboard a smaller base"
        return problem("device memory", need, f"{total / 1e9:.1f} GB", fix)
    return ok("device memory", f"{need} of {total / 1e9:.1f} GB")
