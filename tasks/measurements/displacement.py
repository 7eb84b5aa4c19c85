"""How far the candidate's weights lie from the base's, and whether they moved the worst-case way.

Everything is one streaming pass; the chunks' sums are added up in float64 (float32 sums over 10⁹ squares lose digits).

``worst-case alignment`` of a capability is the cosine between Δ and the gradient g of that capability's loss
at the base. A random Δ in d dimensions has cosine ~ N(0, 1/d), so ``z = cosine · √d`` has a known null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from tasks.measurements.chunk_sums import (
    NO_GRADIENTS,
    ChunkSums,
    GradientSums,
    TensorSums,
    all_squares,
    check_shapes,
    chunk_sums,
)
from tasks.measurements.lora import low_rank_dot, low_rank_norm_squared, low_rank_support


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
class DisplacementTally:
    """Adds up a displacement chunk by chunk, in any order and any chunk size.

    >>> tally = DisplacementTally(["math"])
    >>> tally.add("w", torch.tensor([3.0, 4.0]), torch.tensor([3.0, 6.0]), {"math": torch.tensor([0.0, 5.0])})
    >>> found = tally.result()
    >>> found.norm, found.relative, found.changed_fraction, found.alignment["math"].cosine
    (2.0, 0.4, 0.5, 1.0)
    """

    capabilities: Sequence[str] = ()
    _tensors: dict[str, TensorSums] = field(default_factory=dict, init=False)
    _gradients: dict[str, GradientSums] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._gradients = {capability: GradientSums() for capability in self.capabilities}

    def add(self, tensor: str, base: Tensor, candidate: Tensor, gradients: Mapping[str, Tensor] = NO_GRADIENTS) -> None:
        """Counts one chunk of a tensor: equal shapes of base, candidate and each capability's gradient."""
        self.merge(chunk_sums(tensor, base, candidate, gradients))

    def merge(self, chunk: ChunkSums) -> None:
        """Counts one chunk whose sums were made elsewhere, in another thread perhaps."""
        sums = self._tensors.setdefault(chunk.tensor, TensorSums())
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
        check_shapes(tensor, base, gradients)
        if tensor in self._tensors:
            raise ValueError(f"{tensor}: expected one low-rank update, found the tensor counted before; add it once")
        finite = bool(torch.isfinite(A).all() and torch.isfinite(B).all())
        A, B = torch.nan_to_num(A, 0.0, 0.0, 0.0), torch.nan_to_num(B, 0.0, 0.0, 0.0)
        sums = TensorSums(low_rank=True, finite=finite, parameters=base.numel())
        sums.delta_squared = low_rank_norm_squared(A, B, scale)
        sums.changed = low_rank_support(A, B) if scale else 0
        sums.base_squared = all_squares(base)
        for capability, gradient in gradients.items():
            found = GradientSums(low_rank_dot(A, B, scale, gradient), all_squares(gradient))
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

    def _known(self, capability: str) -> GradientSums:
        if capability not in self._gradients:
            raise ValueError(f"expected a gradient of one of {sorted(self._gradients)}, found {capability!r}")
        return self._gradients[capability]


def _alignment(g: GradientSums, norm: float, parameters: int) -> Alignment:
    lengths = math.sqrt(g.gradient_squared) * norm
    cosine = g.dot / lengths if lengths else 0.0
    return Alignment(cosine=cosine, z=cosine * math.sqrt(parameters), predicted_loss_change=g.dot)
