"""Weights at a chosen point: the base plus noise, or the base plus a multiple of the update.

Every point is computed from a pristine source, in float32, and cast once: adding and subtracting in place does
not come back in bfloat16 (a 40-point sweep drifts by 1 % of the weight norm). What the cast left of the
move is reported, for small moves are rounded away on large weights.

Noise is keyed by (seed, tensor name, draw) and made block by block by a counter-based generator, so it is the
same whatever the order, the device or the chunking, and nothing has to be stored. One draw's direction is
the same at every scale.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 1 << 20
"""Elements of noise made at once. Part of the noise's definition: changing it changes every draw."""

SLICE = 1 << 15
"""Elements set at once on a processor: they stay in its cache, and torch starts no threads for so few."""


class WeightSource(Protocol):
    """Pristine weights by tensor name. A tied tensor may appear under one of its names or under all."""

    def names(self) -> Sequence[str]: ...

    def tensor(self, name: str) -> Tensor: ...


class DeltaSource(Protocol):
    """An update by tensor name, in float32; tensors it does not name are unchanged."""

    def names(self) -> Sequence[str]: ...

    def delta(self, name: str) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class RealisedNoise:
    """What a move became after the cast to the model's dtype.

    ``rms`` is the root mean square of the change over all parameters; ``unchanged_fraction`` the share of
    parameters that the cast left where they were.
    """

    rms: float
    unchanged_fraction: float
    parameters: int = 0

    @property
    def norm(self) -> float:
        """L2 norm of the realised change."""
        return self.rms * math.sqrt(self.parameters)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pristine copy of a loaded model's weights, for models that have no file to read them from again."""

    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> "Snapshot":
        """Copies every parameter once (tied ones under their first name)."""
        return cls({name: p.detach().clone() for name, p in model.named_parameters()})

    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True, slots=True)
class Moved:
    """The weights θ₀ + t·Δ as a source of their own, made tensor by tensor in float32."""

    base: WeightSource
    delta: DeltaSource
    t: float = 1.0
    _moved: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_moved", frozenset(self.delta.names()))
        unknown = self._moved - set(self.base.names())
        if unknown:
            raise ValueError(f"expected an update of the base's tensors, found {sorted(unknown)[:5]}; wrong base?")

    def names(self) -> Sequence[str]:
        return self.base.names()

    def tensor(self, name: str) -> Tensor:
        base = self.base.tensor(name)
        if name not in self._moved or self.t == 0:
            return base
        return torch.add(base.float(), self.delta.delta(name).to(base.device), alpha=self.t)


@dataclass(frozen=True, slots=True)
class RandomLike:
    """A random direction with the norm of an update, tensor by tensor: the control of that update."""

    like: DeltaSource
    seed: int
    draw: int

    def names(self) -> Sequence[str]:
        return self.like.names()

    def delta(self, name: str) -> Tensor:
        update = self.like.delta(name)
        noise = normals(self.seed, f"random-like/{name}", self.draw, update.shape)
        length = torch.linalg.vector_norm(noise, dtype=torch.float64)
        return noise.mul_(float(torch.linalg.vector_norm(update, dtype=torch.float64) / length)) if length else noise


def random_like(delta: DeltaSource, seed: int, draw: int) -> RandomLike:
    """The ``draw``-th random direction that has, tensor by tensor, the norm of ``delta``."""
    return RandomLike(delta, seed, draw)


def normals(seed: int, tensor_name: str, draw: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32, that depend on the arguments alone.

    >>> bool(torch.equal(normals(1, "w", 0, [3]), normals(1, "w", 0, [2, 2]).reshape(-1)[:3]))
    True
    """
    flat = torch.empty(math.prod(shape), dtype=torch.float32)
    for start, block in _blocks(seed, tensor_name, draw, flat.numel()):
        flat[start : start + block.numel()] = block
    return flat.reshape(tuple(shape))


def write_weights(model: nn.Module, source: WeightSource) -> None:
    """Sets the model's weights to the source's, casting once; a tied tensor is written once."""
    for name, target in named_targets(model, source):
        value = source.tensor(name)
        _same_shape(name, target, value)
        target.data.copy_(value)


def perturb(model: nn.Module, base: WeightSource, sigma: float, seed: int, draw: int) -> RealisedNoise:
    """Sets the model to base + σ·ε, ε standard normal on every parameter (tied ones once).

    ``sigma`` is the root mean square move per weight, in weight units.
    """
    squares: list[float] = []
    unchanged, parameters = 0, 0
    for name, target in named_targets(model, base):
        pristine = base.tensor(name)
        _same_shape(name, target, pristine)
        if not (isinstance(target, nn.Parameter) and target.is_floating_point()):
            target.data.copy_(pristine)
            continue
        flat, source, mover = target.data.view(-1), pristine.reshape(-1), _Mover(target.device, sigma)
        squared = 0.0
        for start, noise in _blocks(seed, _canonical(model, target), draw, flat.numel()):
            for part in mover.slices(start, noise.numel()):
                direction = noise[part.start - start : part.stop - start]
                moved, kept = mover.move(flat[part], source[part], direction)
                squared += moved
                unchanged += kept
            parameters += noise.numel()
        squares.append(squared)
    # The same sum in whatever order a file has its tensors.
    return RealisedNoise(math.sqrt(math.fsum(squares) / parameters), unchanged / parameters, parameters)


class _Mover:
    """Writes pristine + σ·direction slice by slice, in buffers that are kept: making them anew costs more than the sums."""

    def __init__(self, device: torch.device, sigma: float) -> None:
        self._sigma, self._size = sigma, SLICE if device.type == "cpu" else BLOCK
        self._before, self._moved = (torch.empty(self._size, device=device) for _ in range(2))
        self._change = torch.empty(self._size, device=device, dtype=torch.float64)

    def slices(self, start: int, count: int) -> Iterator[slice]:
        """Slices that cover ``count`` elements from ``start``."""
        size = self._size
        return (slice(at, min(at + size, start + count)) for at in range(start, start + count, size))

    def move(self, target: Tensor, pristine: Tensor, direction: Tensor) -> tuple[float, int]:
        """Sets a slice of the weights; returns the squared length of what the cast left, and how many stayed."""
        count = target.numel()
        before, moved, change = self._before[:count], self._moved[:count], self._change[:count]
        before.copy_(pristine)
        torch.add(before, direction.to(target.device), alpha=self._sigma, out=moved)
        target.copy_(moved)
        change.copy_(moved.copy_(target).sub_(before))
        return float(torch.dot(change, change)), count - int(torch.count_nonzero(change))


def along(model: nn.Module, base: WeightSource, delta: DeltaSource, t: float) -> None:
    """Sets the model to θ₀ + t·Δ: the base at 0, the candidate at 1."""
    write_weights(model, Moved(base, delta, t))


def named_targets(model: nn.Module, source: WeightSource) -> Iterator[tuple[str, Tensor]]:
    """The source's names with the model's own tensors they mean, each tensor once; refuses names that do not fit."""
    state = model.state_dict(keep_vars=True)
    given = list(source.names())
    unknown = [name for name in given if name not in state]
    reached = {id(state[name]) for name in given if name in state}
    missing = [name for name, p in model.named_parameters() if id(p) not in reached]
    if unknown or missing:
        raise ValueError(
            f"expected the weights of {type(model).__name__}, found unknown {unknown[:5]} and missing {missing[:5]}; "
            "load the model from the configuration that belongs to these weights"
        )
    done: set[int] = set()
    for name in given:
        target = state[name]
        if id(target) not in done:
            done.add(id(target))
            yield name, target


def weight_norm(source: WeightSource) -> float:
    """‖θ‖ over the source's tensors; give it a source that names tied tensors once."""
    return math.sqrt(
        math.fsum(float(torch.linalg.vector_norm(source.tensor(n), dtype=torch.float64)) ** 2 for n in source.names())
    )


def subseed(seed: int, purpose: str) -> int:
    """Another seed for each purpose, so that no two uses of one seed share their noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()[:8], "little")


def _blocks(seed: int, tensor_name: str, draw: int, length: int) -> Iterator[tuple[int, Tensor]]:
    key = hashlib.sha256(f"{seed}\0{draw}\0{tensor_name}".encode()).digest()[:16]
    for number, start in enumerate(range(0, length, BLOCK)):
        # The counter's top word is the block: blocks never overlap and need no skipping to reach. Torch's own
        # CPU generator is not used because it reads only 32 bits of a seed.
        bits = np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, 0, number])
        size = min(BLOCK, length - start)
        yield start, torch.from_numpy(np.random.Generator(bits).standard_normal(size, dtype=np.float32))


def _canonical(model: nn.Module, target: Tensor) -> str:
    """The name a (perhaps tied) parameter has first: the noise must not depend on which name a file used."""
    return next(name for name, p in model.named_parameters() if p is target)


def _same_shape(name: str, target: Tensor, value: Tensor) -> None:
    if target.shape != value.shape:
        raise ValueError(f"{name}: expected shape {tuple(target.shape)}, found {tuple(value.shape)}; wrong base?")
