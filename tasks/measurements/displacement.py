"""How far the candidate's weights lie from the base's, and whether they moved the worst-case way.

Everything is one streaming pass in float64 (float32 sums over 10⁹ squares lose digits), slice by slice in buffers that
each thread keeps: making them anew would cost several times the arithmetic.

``worst-case alignment`` of a capability is the cosine between Δ and the gradient g of that capability's loss
at the base. A random Δ in d dimensions has cosine ~ N(0, 1/d), so ``z = cosine · √d`` has a known null.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from tasks.measurements.lora import low_rank_dot, low_rank_norm_squared, low_rank_support

SLICE = 1 << 15
"""Elements worked on at once: the float64 copies stay in the processor's cache, and torch starts no threads for so few."""

NO_GRADIENTS: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One tensor's share: ‖Δ‖ and ‖θ₀‖ of that tensor, and how many numbers it has."""

    tensor: str
    norm: float
    base_norm: float
    parameters: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """How much Δ points the way that hurts one capability.

    ``predicted_loss_change`` is ⟨g, Δ⟩ in nats per token: what the loss would do if it were linear.
    """

    cosine: float
    z: float
    predicted_loss_change: float


@dataclass(frozen=True, slots=True)
class Displacement:
    """Δ = candidate − base over the parameters both have.

    ``rms`` = ‖Δ‖/√d, comparable with a noise scale σ; ``relative`` = ‖Δ‖/‖θ₀‖; ``non_finite`` names tensors
    with NaN or infinity, whose such elements count as changed and are left out of every sum.
    """

    norm: float
    rms: float
    relative: float
    changed_fraction: float
    parameters: int
    base_norm: float
    non_finite: tuple[str, ...]
    layers: tuple[LayerRow, ...]
    alignment: Mapping[str, Alignment]


@dataclass(slots=True)
class _TensorSums:
    delta_squared: float = 0.0
    base_squared: float = 0.0
    changed: int = 0
    parameters: int = 0
    finite: bool = True
    low_rank: bool = False

    def merge(self, more: "_TensorSums") -> None:
        """Adds a chunk's sums to the tensor's."""
        self.delta_squared += more.delta_squared
        self.base_squared += more.base_squared
        self.changed += more.changed
        self.parameters += more.parameters
        self.finite = self.finite and more.finite


@dataclass(slots=True)
class _GradientSums:
    dot: float = 0.0
    gradient_squared: float = 0.0

    def merge(self, more: "_GradientSums") -> None:
        """Adds another part's sums."""
        self.dot += more.dot
        self.gradient_squared += more.gradient_squared


@dataclass(slots=True)
class DisplacementTally:
    """Adds up a displacement chunk by chunk, in any order and any chunk size.

    >>> tally = DisplacementTally(["math"])
    >>> tally.add("w", torch.tensor([3.0, 4.0]), torch.tensor([3.0, 6.0]), {"math": torch.tensor([0.0, 5.0])})
    >>> found = tally.result()
    >>> found.norm, found.relative, found.changed_fraction, found.alignment["math"].cosine
    (2.0, 0.4, 0.5, 1.0)
    """

    capabilities: Sequence[str] = ()
    _tensors: dict[str, _TensorSums] = field(default_factory=dict, init=False)
    _gradients: dict[str, _GradientSums] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._gradients = {capability: _GradientSums() for capability in self.capabilities}

    def add(self, tensor: str, base: Tensor, candidate: Tensor, gradients: Mapping[str, Tensor] = NO_GRADIENTS) -> None:
        """Counts one chunk of a tensor: equal shapes of base, candidate and each capability's gradient."""
        self.merge(chunk_sums(tensor, base, candidate, gradients))

    def merge(self, chunk: "ChunkSums") -> None:
        """Counts one chunk whose sums were made elsewhere, in another thread perhaps."""
        sums = self._tensors.setdefault(chunk.tensor, _TensorSums())
        if sums.low_rank:
            once = "expected either dense chunks or one low-rank update, found both; add it once"
            raise ValueError(f"{chunk.tensor}: {once}")
        sums.merge(chunk.sums)
        for capability, found in chunk.gradients.items():
            self._known(capability).merge(found)

    def add_low_rank(
        self,
        tensor: str,
        base: Tensor,
        A: Tensor,
        B: Tensor,
        scale: float,
        gradients: Mapping[str, Tensor] = NO_GRADIENTS,
    ) -> None:
        """Counts a whole tensor changed by ``scale · B @ A``, from the factors: nothing of the tensor's size is made."""
        expected = (B.shape[0], A.shape[1])
        if tuple(base.shape) != expected or A.shape[0] != B.shape[1]:
            raise ValueError(
                f"{tensor}: expected a base of the shape of B @ A, found base {tuple(base.shape)}, "
                f"A {tuple(A.shape)}, B {tuple(B.shape)}; is the adapter for another base?"
            )
        _check(tensor, base, gradients)
        if tensor in self._tensors:
            raise ValueError(f"{tensor}: expected one low-rank update, found the tensor counted before; add it once")
        finite = bool(torch.isfinite(A).all() and torch.isfinite(B).all())
        A, B = torch.nan_to_num(A, 0.0, 0.0, 0.0), torch.nan_to_num(B, 0.0, 0.0, 0.0)
        sums = _TensorSums(low_rank=True, finite=finite, parameters=base.numel())
        sums.delta_squared = low_rank_norm_squared(A, B, scale)
        sums.changed = low_rank_support(A, B) if scale else 0
        sums.base_squared = _all_squares(base)
        for capability, gradient in gradients.items():
            found = _GradientSums(low_rank_dot(A, B, scale, gradient), _all_squares(gradient))
            self._known(capability).merge(found)
        self._tensors[tensor] = sums

    def result(self) -> Displacement:
        """The displacement of all chunks so far; of nothing it is zero."""
        rows = sorted(self._tensors.items())
        parameters = sum(s.parameters for _, s in rows)
        norm = math.sqrt(math.fsum(s.delta_squared for _, s in rows))
        base_norm = math.sqrt(math.fsum(s.base_squared for _, s in rows))
        return Displacement(
            norm=norm,
            rms=norm / math.sqrt(parameters) if parameters else 0.0,
            relative=norm / base_norm if base_norm else 0.0,
            changed_fraction=sum(s.changed for _, s in rows) / parameters if parameters else 0.0,
            parameters=parameters,
            base_norm=base_norm,
            non_finite=tuple(name for name, s in rows if not s.finite),
            layers=tuple(
                LayerRow(name, math.sqrt(s.delta_squared), math.sqrt(s.base_squared), s.parameters) for name, s in rows
            ),
            alignment=MappingProxyType(
                {capability: _alignment(g, norm, parameters) for capability, g in self._gradients.items()}
            ),
        )

    def _known(self, capability: str) -> _GradientSums:
        if capability not in self._gradients:
            raise ValueError(f"expected a gradient of one of {sorted(self._gradients)}, found {capability!r}")
        return self._gradients[capability]


@dataclass(frozen=True, slots=True)
class ChunkSums:
    """What one chunk of a tensor adds to the sums."""

    tensor: str
    sums: _TensorSums
    gradients: Mapping[str, _GradientSums]


def chunk_sums(
    tensor: str, base: Tensor, candidate: Tensor, gradients: Mapping[str, Tensor] = NO_GRADIENTS
) -> ChunkSums:
    """The sums of one chunk, of equal shapes of base, candidate and each capability's gradient; any thread may make them."""
    _check(tensor, base, {"candidate": candidate, **gradients})
    flat = {capability: gradient.reshape(-1) for capability, gradient in gradients.items()}
    base, candidate = base.reshape(-1), candidate.reshape(-1)
    sums, of = _TensorSums(parameters=base.numel()), {capability: _GradientSums() for capability in gradients}
    for part in _slices(base.numel()):
        delta = _add_slice(sums, base[part], candidate[part])
        for capability, gradient in flat.items():
            g = _BUFFERS.third[: delta.numel()].copy_(gradient[part])
            of[capability].merge(_GradientSums(float(torch.dot(g, delta)), _square(g)))
    return ChunkSums(tensor, sums, of)


def _check(tensor: str, base: Tensor, others: Mapping[str, Tensor]) -> None:
    for what, other in others.items():
        if other.shape != base.shape:
            raise ValueError(
                f"{tensor}: expected {what} of the base's shape {tuple(base.shape)}, "
                f"found {tuple(other.shape)}; compare the common part only"
            )


class _Buffers(threading.local):
    """Room for three slices in float64 and one of flags, for each thread its own."""

    def __init__(self) -> None:
        self.first, self.second, self.third = (torch.empty(SLICE, dtype=torch.float64) for _ in range(3))
        self.flags = np.empty(SLICE, dtype=bool)


_BUFFERS = _Buffers()


def _add_slice(sums: _TensorSums, base: Tensor, candidate: Tensor) -> Tensor:
    """Adds a slice's squares and changes; returns the difference, which lasts until the thread's next slice."""
    count, room = base.numel(), _BUFFERS
    ours, delta = room.first[:count].copy_(base), room.second[:count].copy_(candidate)
    delta.sub_(ours)
    sums.changed += int(np.count_nonzero(np.not_equal(delta.numpy(), 0, out=room.flags[:count])))
    squared, base_squared = _square(delta), _square(ours)
    # A float32 square cannot overflow float64, so a non-finite sum means a non-finite element.
    if not math.isfinite(squared + base_squared):
        sums.finite = False
        squared, base_squared = (_square(t.nan_to_num_(0.0, 0.0, 0.0)) for t in (delta, ours))
    sums.delta_squared += squared
    sums.base_squared += base_squared
    return delta


def _alignment(g: _GradientSums, norm: float, parameters: int) -> Alignment:
    lengths = math.sqrt(g.gradient_squared) * norm
    cosine = g.dot / lengths if lengths else 0.0
    return Alignment(cosine=cosine, z=cosine * math.sqrt(parameters), predicted_loss_change=g.dot)


def _square(flat: Tensor) -> float:
    return float(torch.dot(flat, flat))


def _all_squares(tensor: Tensor) -> float:
    flat = tensor.reshape(-1)
    return sum(_square(flat[part].double()) for part in _slices(flat.numel()))


def _slices(length: int) -> Iterator[slice]:
    return (slice(start, start + SLICE) for start in range(0, length, SLICE))
