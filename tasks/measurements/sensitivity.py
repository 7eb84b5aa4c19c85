"""How much loss the worst small change of the weights makes: adversarial sensitivity, and its random control.

value = max over ‖δ‖ ≤ ρ of L(θ + δ) − L(θ), searched by projected, normalised gradient ascent on the loss of the
reference answers ("worst-case sharpness"; ``ρ`` = ball · ‖θ₀‖). A search finds what it finds: every value is a
**lower bound** of the true worst case, and its interval is about the choice of items and starts, not about attacks
that were not tried. Base and candidate are searched with the same ball, steps, starts and items, so that their ratio
compares like with like. A capability that is gone has little loss left to gain: read the ratio with the retention.

Memory: the model's own weights and their gradient, both in float32 while it searches (in bfloat16 most of so small a
step would be rounded away); δ is not stored but is weights − source.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tasks.measurements.confidence import Interval, student_interval
from tasks.measurements.perturbation import WeightSource, named_targets, perturb, subseed, write_weights
from tasks.measurements.retention import item_order

LossOf = Callable[[Sequence[int]], Tensor]
"""The differentiable mean loss of the items with these indices, in nats per token."""

STRIDE = 2.5
"""Length of all steps together in radii: enough to cross the ball and turn (Madry et al. 2018)."""

START = 0.1
"""Length of the random start in radii: enough that seeds differ, too little to spend the ball."""

FLOOR = 1e-6
"""Loss increases below this many nats count as this, so that ratios stay finite."""


@dataclass(frozen=True, slots=True)
class Ascent:
    """What one search found, losses in nats per token; ``norm`` is ‖δ‖ at the worst point."""

    increase: float
    clean_loss: float
    norm: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Loss increases, one per seed, of the searched direction and of a random one of the same norm."""

    adversarial: tuple[float, ...]
    random: tuple[float, ...]


def measure_sensitivity(
    model: nn.Module,
    source: WeightSource,
    loss: LossOf,
    count: int,
    *,
    capability: str,
    radius: float,
    steps: int,
    seeds: int,
    items: int,
    seed: int,
) -> Sensitivity:
    """Searches ``seeds`` times from the pristine ``source``, each time with other items and another start.

    ``count`` is how many items there are. The model is left at the source.
    """
    adversarial, random = [], []
    with in_float32(model):
        for number in range(seeds):
            key = f"{capability}/ascent/{number}"
            of = partial(loss, sorted(item_order(count, seed, key)[:items]))
            write_weights(model, source)
            clean = _value(of)
            found = ascend(model, source, of, clean_loss=clean, radius=radius, steps=steps, seed=subseed(seed, key))
            adversarial.append(found.increase)
            random.append(_random_increase(model, source, of, clean, radius, subseed(seed, f"{key}/control")))
    write_weights(model, source)
    return Sensitivity(tuple(adversarial), tuple(random))


def largest_increase(
    model: nn.Module, source: WeightSource, loss: Callable[[], Tensor], *, radius: float, steps: int, seed: int
) -> float:
    """The largest loss increase that one search from the source finds within the radius; the model is left there."""
    with in_float32(model):
        write_weights(model, source)
        found = ascend(model, source, loss, clean_loss=_value(loss), radius=radius, steps=steps, seed=seed)
    write_weights(model, source)
    return found.increase


def ascend(
    model: nn.Module,
    source: WeightSource,
    loss: Callable[[], Tensor],
    *,
    clean_loss: float,
    radius: float,
    steps: int,
    seed: int,
) -> Ascent:
    """One search: a short random start, then ``steps`` gradient steps, each projected onto the ball.

    The best point visited counts, δ = 0 included, so the increase is never negative. The model is left where the
    search ended.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    norm = perturb(model, source, START * radius / math.sqrt(_parameters(model)), seed, 0).norm
    best = Ascent(0.0, clean_loss, 0.0)
    for _ in range(steps):
        here = loss()
        best = _better(best, float(here.detach()), norm)
        model.zero_grad(set_to_none=True)
        here.backward()
        moved = _step(model, source, STRIDE * radius / steps, radius)
        model.zero_grad(set_to_none=True)
        if moved is None:
            return best
        norm = moved
    return _better(best, _value(loss), norm)


def seeds_interval(increases: Sequence[float], alpha: float) -> Interval:
    """The mean increase over seeds with Student's t interval, not below 0 for searches that cannot be."""
    found = student_interval(increases, alpha)
    if found.lower is None or min(increases) < 0:
        return found
    return Interval(found.value, max(0.0, found.lower), found.upper, found.alpha, found.n, found.method)


def sensitivity_ratio(candidate: Sequence[float], base: Sequence[float], alpha: float) -> Interval:
    """Candidate ÷ base, the geometric mean over paired seeds with Student's t interval of the log-ratio.

    >>> found = sensitivity_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0], 0.05)
    >>> round(found.value, 9), round(found.lower, 9), round(found.upper, 9)
    (2.0, 2.0, 2.0)
    """
    if len(candidate) != len(base) or not base:
        raise ValueError(f"expected as many candidate as base values, found {len(candidate)} and {len(base)}")
    logs = np.log(np.maximum(candidate, FLOOR)) - np.log(np.maximum(base, FLOOR))
    found = student_interval(logs, alpha)
    lower, upper = (None if bound is None else math.exp(min(bound, _LARGEST)) for bound in (found.lower, found.upper))
    return Interval(math.exp(found.value), lower, upper, alpha, found.n, "student-t of log-ratios")


# e to this is still a float.
_LARGEST = 700.0


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """The model's parameters (not its buffers) in float32 meanwhile; afterwards they want writing anew."""
    dtypes = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in dtypes:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in dtypes:
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)


def _random_increase(
    model: nn.Module, source: WeightSource, loss: Callable[[], Tensor], clean: float, radius: float, seed: int
) -> float:
    perturb(model, source, radius / math.sqrt(_parameters(model)), seed, 0)
    return _value(loss) - clean


def _step(model: nn.Module, source: WeightSource, length: float, radius: float) -> float | None:
    """Moves along the gradient and back onto the ball; returns ‖δ‖, or ``None`` where there is no gradient to follow."""
    slope = math.sqrt(math.fsum(_squared(p.grad) for p in model.parameters() if p.grad is not None))
    if not math.isfinite(slope) or slope == 0:
        return None
    scale = length / slope
    deltas = dict(named_targets(model, source))
    norm = math.sqrt(math.fsum(_squared(_delta(p, source.tensor(name), scale)) for name, p in deltas.items()))
    shrink = min(1.0, radius / norm) if norm else 1.0
    squared = 0.0
    for name, parameter in deltas.items():
        pristine = source.tensor(name).to(parameter.device, torch.float32)
        wanted = torch.add(pristine, _delta(parameter, pristine, scale), alpha=shrink)
        parameter.data.copy_(wanted)
        squared += _squared(parameter.data.float() - pristine)
    return math.sqrt(squared)


def _delta(parameter: Tensor, pristine: Tensor, scale: float) -> Tensor:
    delta = parameter.data.float() - pristine.to(parameter.device, torch.float32)
    return delta if parameter.grad is None else delta.add_(parameter.grad.float(), alpha=scale)


def _better(best: Ascent, loss: float, norm: float) -> Ascent:
    increase = loss - best.clean_loss
    # A comparison with NaN is false: an overflowed loss never counts as found.
    return Ascent(increase, best.clean_loss, norm) if best.increase < increase < math.inf else best


def _value(loss: Callable[[], Tensor]) -> float:
    with torch.no_grad():
        return float(loss())


def _squared(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
