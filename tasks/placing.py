"""On which of a worker's devices a model is: the first that holds it, else split over them, layer by layer.

A split model takes its input and gives its output on the first device; what is in between is handed from one to the next.
The numbers are those of one device, but for its rounding. Nothing is ever offloaded to the host: an ascent would take days.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map
from torch import nn

from gate.domain.errors import InvalidInput, NotMeasurable
from gate.domain.gpu_sizes import COPIES, GB, WORK_BYTES

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def devices_of(wanted: str) -> tuple[str, ...]:
    """The torch devices meant by ``auto``, every GPU there is, or named outright. Raises `InvalidInput` for none.

    >>> devices_of("cpu"), devices_of("cuda:0, cuda:1")
    (('cpu',), ('cuda:0', 'cuda:1'))
    """
    if wanted != "auto":
        named = tuple(name.strip() for name in wanted.split(",") if name.strip())
        if not named:
            raise InvalidInput("expected a torch device, or auto, found none; set GATE_DEVICE")
        return named
    if torch.cuda.is_available():
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    return ("mps",) if torch.backends.mps.is_available() else ("cpu",)


def memory(device: str) -> float:
    """Bytes of memory of a device; of this machine (or its container) for the CPU and what shares its memory."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[1])
    here = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(here, float(limit)) if limit.isdigit() else here


def placed(model: Any, devices: Sequence[str]) -> nn.Module:
    """The model where it can be measured.

    Raises `NotMeasurable` where all of several devices together do not hold what that takes.
    """
    rooms = [memory(device) for device in devices]
    need = COPIES * sum(p.numel() * p.element_size() for p in model.parameters()) + WORK_BYTES
    holding = [device for device, found in zip(devices, rooms, strict=True) if need <= found]
    if holding or len(devices) == 1:
        alone: nn.Module = model.to((holding or devices)[0])
        return alone
    weights: dict[int | str, int] = {
        number: max(0, int((found - WORK_BYTES) / COPIES)) for number, found in enumerate(rooms)
    }
    whole = list(model._no_split_modules or ())
    # Whatever the devices do not hold would go to the host, which has room without end here.
    found = infer_auto_device_map(model, {**weights, "cpu": 1 << 62}, no_split_module_classes=whole)
    if "cpu" in found.values():
        raise NotMeasurable(
            f"expected {need / GB:.0f} GB on {', '.join(devices)} for a model and what measuring it takes, in whole layers, "
            f"found {sum(rooms) / GB:.0f} GB; use larger devices or more of them (GATE_DEVICE)"
        )
    where = {name: devices[number] for name, number in found.items()}
    skipped = getattr(model, "_skip_keys_device_placement", None)
    split: nn.Module = dispatch_model(model, where, main_device=devices[0], skip_keys=skipped, force_hooks=True)
    return split


def names_of(model: nn.Module) -> str:
    """What a model's parameters lie on, for people: ``cpu``, ``NVIDIA H100``, ``2 × NVIDIA H100``."""
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    names = [torch.cuda.get_device_name(each) if each.startswith("cuda") else each for each in devices]
    counted = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counted.items())
