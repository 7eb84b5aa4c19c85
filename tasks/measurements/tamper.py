"""How far a few steps of adversarial fine-tuning must go until half of a capability is gone: the tamper radius.

From the candidate, normalised gradient ascent on the loss of the capability's reference answers, each step 1.5 times as
long as the one before, until the score on fixed items has fallen to half of the base's. ρ = ‖δ‖ / ‖θ₀‖ there. Several
starts and item draws are tried, since outcomes flip with the seed (Qi and others 2024), and the **smallest** ρ counts.

It is an upper bound of the true radius: another attack may need less. Where no attack got there within reach, nothing is
known but that these failed.

Memory: as in the search for the worst change, the weights and their gradient in float32.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.measurements.confidence import Interval
from tasks.measurements.perturbation import WeightSource, named_targets, perturb, subseed, write_weights
from tasks.measurements.sensitivity import in_float32, sensitivity_ratio

GROWTH = 1.5
"""By how much each step is longer than the one before: the radius is known to that factor over a wide range."""

START = 0.1
"""Length of the random start in first steps."""


@dataclass(frozen=True, slots=True)
class Attack:
    """How far one attack went in ‖δ‖, and whether the capability was lost there."""

    norm: float
    broke: bool


def attacks(
    model: nn.Module,
    source: WeightSource,
    loss_of: Callable[[int, int], Tensor],
    broken: Callable[[], bool],
    *,
    reach: float,
    steps: int,
    seeds: int,
    seed: int,
) -> tuple[Attack, ...]:
    """One attack a seed from the source. ``loss_of(number, step)`` is the loss to raise, ``broken()`` whether it is enough."""
    found = []
    with in_float32(model):
        for number in range(seeds):
            write_weights(model, source)
            found.append(_attack(model, source, loss_of, broken, reach, steps, number, subseed(seed, f"{number}")))
    write_weights(model, source)
    return tuple(found)


def tamper_radius(found: Sequence[Attack], weight_norm: float) -> Interval:
    """The smallest ‖δ‖/‖θ₀‖ that broke the capability, which the true radius is at most; else how far was tried, unbounded.

    >>> tamper_radius([Attack(2.0, True), Attack(1.0, False), Attack(3.0, True)], 10.0).upper
    0.2
    >>> tamper_radius([Attack(1.0, False)], 10.0).upper is None
    True
    """
    broke = [attack.norm / weight_norm for attack in found if attack.broke]
    if broke:
        return Interval(min(broke), None, min(broke), 0.0, len(found), "smallest of the attacks that succeeded")
    return Interval(max(a.norm for a in found) / weight_norm, None, None, 0.0, len(found), "no attack succeeded")


def tamper_ratio(candidate: Sequence[Attack], base: Sequence[Attack], alpha: float) -> Interval | None:
    """Candidate ÷ base, the geometric mean over paired seeds; None where an attack on the base failed.

    An attack on the candidate that failed counts as far as it went, which can only lessen the ratio.
    """
    if not all(attack.broke for attack in base):
        return None
    found = sensitivity_ratio([a.norm for a in candidate], [a.norm for a in base], alpha)
    if all(attack.broke for attack in candidate):
        return found
    return Interval(found.value, found.lower, None, found.alpha, found.n, found.method)


def step_lengths(reach: float, steps: int) -> Iterator[float]:
    """Lengths that grow and together are ``reach``.

    >>> [round(length, 6) for length in step_lengths(4.75, 3)]
    [1.0, 1.5, 2.25]
    """
    first = reach * (GROWTH - 1) / (GROWTH**steps - 1)
    return (first * GROWTH**step for step in range(steps))


def _attack(
    model: nn.Module,
    source: WeightSource,
    loss_of: Callable[[int, int], Tensor],
    broken: Callable[[], bool],
    reach: float,
    steps: int,
    number: int,
    seed: int,
) -> Attack:
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if broken():
        return Attack(0.0, True)
    lengths = tuple(step_lengths(reach, steps))
    numbers = sum(parameter.numel() for parameter in model.parameters())
    perturb(model, source, START * lengths[0] / math.sqrt(numbers), seed, 0)
    for step, length in enumerate(lengths):
        if not _up(model, loss_of(number, step), length):
            break
        if broken():
            return Attack(_distance(model, source), True)
    return Attack(_distance(model, source), False)


def _up(model: nn.Module, loss: Tensor, length: float) -> bool:
    """One step of this length along the gradient; False where there is none to follow."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    moving = [parameter for parameter in model.parameters() if parameter.grad is not None]
    slope = math.sqrt(math.fsum(_square(p.grad) for p in moving if p.grad is not None))
    if math.isfinite(slope) and slope > 0:
        with torch.no_grad():
            for parameter in moving:
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=length / slope)
    model.zero_grad(set_to_none=True)
    return math.isfinite(slope) and slope > 0


def _distance(model: nn.Module, source: WeightSource) -> float:
    return math.sqrt(
        math.fsum(
            _square(p.data.float() - source.tensor(name).to(p.device, torch.float32))
            for name, p in named_targets(model, source)
        )
    )


def _square(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
