"""What one chunk of a tensor adds to a displacement: sums of squares and of products, changes, and whether all is finite.

Weights stored in 16 bits are subtracted and squared in float32: their differences are exact to 2⁻²⁴ of themselves (mostly
they are exact), and rows of 1024 squares are added in float32 and the rows in float64. In the worst order of adding that
is off by 2⁻¹⁵ of the norm, in fact by some 10⁻⁸. Wider weights, gradients, and slices whose squares leave float32's range
are summed in float64. Slice by slice in buffers that each thread keeps: making them anew would cost several times the arithmetic.
"""

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

SLICE = 1 << 16
"""Elements worked on at once: their copies stay in the processor's cache."""

ROW = 1 << 10
"""Squares added up in float32 before their sum goes on in float64."""

SMALLEST = 2.0**-100
"""Mean square from which on float32 is trusted: below 2⁻¹²⁶ squares vanish, which is then 2⁻²⁶ of the sum at most."""

NO_GRADIENTS: Mapping[str, Tensor] = MappingProxyType({})

HALVES = (torch.bfloat16, torch.float16)


@dataclass(slots=True)
class TensorSums:
    """Σ Δ², Σ θ₀², how many numbers changed and how many there are; ``low_rank`` where they are a whole update's."""

    delta_squared: float = 0.0
    base_squared: float = 0.0
    changed: int = 0
    parameters: int = 0
    finite: bool = True
    low_rank: bool = False

    def merge(self, more: "TensorSums") -> None:
        """Adds a chunk's sums to the tensor's."""
        self.delta_squared += more.delta_squared
        self.base_squared += more.base_squared
        self.changed += more.changed
        self.parameters += more.parameters
        self.finite = self.finite and more.finite


@dataclass(slots=True)
class GradientSums:
    """Σ g·Δ and Σ g² of one capability's gradient."""

    dot: float = 0.0
    gradient_squared: float = 0.0

    def merge(self, more: "GradientSums") -> None:
        """Adds another part's sums."""
        self.dot += more.dot
        self.gradient_squared += more.gradient_squared


@dataclass(frozen=True, slots=True)
class ChunkSums:
    """What one chunk of a tensor adds to the sums."""

    tensor: str
    sums: TensorSums
    gradients: Mapping[str, GradientSums]


def chunk_sums(
    tensor: str, base: Tensor, candidate: Tensor, gradients: Mapping[str, Tensor] = NO_GRADIENTS
) -> ChunkSums:
    """The sums of one chunk, of equal shapes of base, candidate and each capability's gradient; any thread may make them."""
    check_shapes(tensor, base, {"candidate": candidate, **gradients})
    flat = {capability: gradient.reshape(-1) for capability, gradient in gradients.items()}
    base, candidate = base.reshape(-1), candidate.reshape(-1)
    sums, of = TensorSums(parameters=base.numel()), {capability: GradientSums() for capability in gradients}
    for part in slices(base.numel()):
        delta = _add_slice(sums, base[part], candidate[part], wide=bool(gradients))
        for capability, gradient in flat.items():
            g = _BUFFERS.gradient[: delta.numel()].copy_(gradient[part])
            of[capability].merge(GradientSums(float(torch.dot(g, delta)), _square(g)))
    return ChunkSums(tensor, sums, of)


def check_shapes(tensor: str, base: Tensor, others: Mapping[str, Tensor]) -> None:
    """Raises ValueError where one of the others has not the base's shape."""
    for what, other in others.items():
        if other.shape != base.shape:
            raise ValueError(
                f"{tensor}: expected {what} of the base's shape {tuple(base.shape)}, "
                f"found {tuple(other.shape)}; compare the common part only"
            )


def all_squares(tensor: Tensor) -> float:
    """Σ x² in float64."""
    flat = tensor.reshape(-1)
    return sum(_square(flat[part].double()) for part in slices(flat.numel()))


def slices(length: int) -> Iterator[slice]:
    """Cuts a length into slices, the last perhaps shorter."""
    return (slice(start, start + SLICE) for start in range(0, length, SLICE))


class _Buffers(threading.local):
    """Room for a slice of base, difference and gradient, for each thread its own."""

    def __init__(self) -> None:
        self.narrow_base, self.narrow_delta = (torch.empty(SLICE, dtype=torch.float32) for _ in range(2))
        self.base, self.delta, self.gradient = (torch.empty(SLICE, dtype=torch.float64) for _ in range(3))
        self.flags = np.empty(SLICE, dtype=bool)


_BUFFERS = _Buffers()


def _add_slice(sums: TensorSums, base: Tensor, candidate: Tensor, wide: bool) -> Tensor:
    """Adds a slice's squares and changes; returns the difference, which lasts until the thread's next slice.

    ``wide`` asks for the difference in float64.
    """
    if base.dtype in HALVES and candidate.dtype in HALVES:
        delta = _add_halves(sums, base, candidate)
        if delta is not None:
            return _BUFFERS.delta[: delta.numel()].copy_(delta) if wide else delta
    return _add_wide(sums, base, candidate)


def _add_halves(sums: TensorSums, base: Tensor, candidate: Tensor) -> Tensor | None:
    """Adds a slice of 16-bit weights in float32; None, and nothing added, where its squares leave float32's range."""
    count, room = base.numel(), _BUFFERS
    ours, delta = room.narrow_base[:count].copy_(base), room.narrow_delta[:count].copy_(candidate)
    with np.errstate(invalid="ignore", over="ignore"):  # whatever is not finite is summed again, in float64
        np.subtract(delta.numpy(), ours.numpy(), out=delta.numpy())
        changed, squared, base_squared = _changed(delta), _square_rows(delta), _square_rows(ours)
    floor = SMALLEST * count
    if not (_lies_in(floor, base_squared) and (changed == 0 or _lies_in(floor, squared))):
        return None
    sums.changed += changed
    sums.delta_squared += squared
    sums.base_squared += base_squared
    return delta


def _add_wide(sums: TensorSums, base: Tensor, candidate: Tensor) -> Tensor:
    """Adds a slice in float64."""
    count, room = base.numel(), _BUFFERS
    ours, delta = room.base[:count].copy_(base), room.delta[:count].copy_(candidate)
    delta.sub_(ours)
    sums.changed += _changed(delta)
    squared, base_squared = _square(delta), _square(ours)
    # A float32 square cannot overflow float64, so a non-finite sum means a non-finite element.
    if not math.isfinite(squared + base_squared):
        sums.finite = False
        squared, base_squared = (_square(t.nan_to_num_(0.0, 0.0, 0.0)) for t in (delta, ours))
    sums.delta_squared += squared
    sums.base_squared += base_squared
    return delta


def _changed(delta: Tensor) -> int:
    return int(np.count_nonzero(np.not_equal(delta.numpy(), 0, out=_BUFFERS.flags[: delta.numel()])))


def _lies_in(floor: float, squares: float) -> bool:
    return floor <= squares < math.inf


def _square_rows(flat: Tensor) -> float:
    """Σ x² of float32: row by row in float32, the rows' sums in float64."""
    whole = flat.numel() // ROW * ROW
    rows, rest = flat[:whole].view(-1, ROW).numpy(), flat[whole:].numpy()
    return float(np.vecdot(rows, rows).sum(dtype=np.float64)) + float(np.vecdot(rest, rest))


def _square(flat: Tensor) -> float:
    return float(torch.dot(flat, flat))
