"""How far the candidate's weights lie from the base's, and whether they moved the worst-case way.

Everything is one streaming pass: differences in float32 (exact enough for bfloat16 and float16 inputs),
sums in float64 (float32 sums over 10⁹ squares lose digits). Nothing here holds more than a slice twice.

``worst-case alignment`` of a capability is the cosine between Δ and the gradient g of that capability's loss
at the base. A random Δ in d dimensions has cosine ~ N(0, 1/d), so ``z = cosine · √d`` has a known null.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from tasks.measurements.lora import low_rank_dot, low_rank_norm_squared, low_rank_support

SLICE = 1 << 18
"""Elements worked on at once: small enough that the float64 copies stay in the processor's cache."""

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


@dataclass(slots=True)
class _GradientSums:
    dot: float = 0.0
    gradient_squared: float = 0.0


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
        self._check(tensor, base, {"candidate": candidate, **gradients})
        sums = self._tensors.setdefault(tensor, _TensorSums())
        if sums.low_rank:
            raise ValueError(f"{tensor}: expected either dense chunks or one low-rank update, found both; add it once")
        flat = {capability: self._known(capability, g).reshape(-1) for capability, g in gradients.items()}
        base, candidate = base.reshape(-1), candidate.reshape(-1)
        for part in _slices(base.numel()):
            delta = self._add_slice(sums, base[part].float(), candidate[part].float())
            for capability, gradient in flat.items():
                _add_gradient(self._gradients[capability], gradient[part].double(), delta)

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
        self._check(tensor, base, gradients)
        if tensor in self._tensors:
            raise ValueError(f"{tensor}: expected one low-rank update, found the tensor counted before; add it once")
        finite = bool(torch.isfinite(A).all() and torch.isfinite(B).all())
        A, B = torch.nan_to_num(A, 0.0, 0.0, 0.0), torch.nan_to_num(B, 0.0, 0.0, 0.0)
        sums = _TensorSums(low_rank=True, finite=finite, parameters=base.numel())
        sums.delta_squared = low_rank_norm_squared(A, B, scale)
        sums.changed = low_rank_support(A, B) if scale else 0
        for part in _slices(base.numel()):
            sums.base_squared += _square(base.reshape(-1)[part].double())
        for capability, gradient in gradients.items():
            total = self._gradients[capability]
            total.dot += low_rank_dot(A, B, scale, self._known(capability, gradient))
            total.gradient_squared += sum(_square(gradient.reshape(-1)[p].double()) for p in _slices(gradient.numel()))
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

    def _known(self, capability: str, gradient: Tensor) -> Tensor:
        if capability not in self._gradients:
            raise ValueError(f"expected a gradient of one of {sorted(self._gradients)}, found {capability!r}")
        return gradient

    @staticmethod
    def _check(tensor: str, base: Tensor, others: Mapping[str, Tensor]) -> None:
        for what, other in others.items():
            if other.shape != base.shape:
                raise ValueError(
                    f"{tensor}: expected {what} of the base's shape {tuple(base.shape)}, "
                    f"found {tuple(other.shape)}; compare the common part only"
                )

    @staticmethod
    def _add_slice(sums: _TensorSums, base: Tensor, candidate: Tensor) -> Tensor:
        difference = candidate - base
        sums.changed += int(torch.count_nonzero(difference))
        sums.parameters += base.numel()
        delta, base = difference.double(), base.double()
        squared, base_squared = _square(delta), _square(base)
        # A float32 square cannot overflow float64, so a non-finite sum means a non-finite element.
        if not math.isfinite(squared + base_squared):
            sums.finite = False
            delta, base = torch.nan_to_num(delta, 0.0, 0.0, 0.0), torch.nan_to_num(base, 0.0, 0.0, 0.0)
            squared, base_squared = _square(delta), _square(base)
        sums.delta_squared += squared
        sums.base_squared += base_squared
        return delta


def _add_gradient(total: _GradientSums, gradient: Tensor, delta: Tensor) -> None:
    total.dot += float(torch.dot(gradient, delta))
    total.gradient_squared += _square(gradient)


def _alignment(g: _GradientSums, norm: float, parameters: int) -> Alignment:
    lengths = math.sqrt(g.gradient_squared) * norm
    cosine = g.dot / lengths if lengths else 0.0
    return Alignment(cosine=cosine, z=cosine * math.sqrt(parameters), predicted_loss_change=g.dot)


def _square(flat: Tensor) -> float:
    return float(torch.dot(flat, flat))


def _slices(length: int) -> Iterator[slice]:
    return (slice(start, start + SLICE) for start in range(0, length, SLICE))
