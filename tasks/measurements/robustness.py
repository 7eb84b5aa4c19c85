"""Average-case adaptive robustness: the score under noise in proportion to each tensor's own size, over a range of strengths.

    R_κ(θ) = E S(θ + κ·rms(θ_l)·ε_l),   AURC(θ) = (1/κ_max) ∫₀^κ_max R_κ(θ) dκ

Noise of one size for all tensors treats a rescaling of two layers that cancels as a change; in proportion to the tensor it
does not (Kwon and others 2021 on adaptive sharpness). Base and candidate are scored under the same draws on the same items,
and the draw is the unit of what is said about their difference.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.measurements.benchmark import ScoreItems
from tasks.measurements.confidence import Interval, student_interval
from tasks.measurements.perturbation import WeightSource, normals

Place = Callable[[float, int], object]
"""Sets the weights to those under noise of strength κ in a draw; κ = 0 is the model itself."""


@dataclass(frozen=True, slots=True)
class AdaptiveNoise:
    """One draw of noise, each tensor's with the root mean square of that tensor; implements ``DeltaSource``."""

    source: WeightSource
    tensors: Sequence[str]
    seed: int
    draw: int

    def names(self) -> Sequence[str]:
        """The tensors that have noise."""
        return self.tensors

    def delta(self, name: str) -> Tensor:
        """The tensor's noise, float32."""
        tensor = self.source.tensor(name)
        length = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
        noise = normals(self.seed, f"adaptive/{name}", self.draw, tensor.shape)
        return noise.mul_(length / math.sqrt(max(1, tensor.numel())))


def areas(
    place: Place,
    score: Mapping[str, ScoreItems],
    items: Mapping[str, Sequence[int]],
    strengths: Sequence[float],
    draws: int,
) -> dict[str, list[float]]:
    """Each capability's area under its scores, one for each draw, by the trapezoidal rule from κ = 0 on."""
    at = sorted(strengths)
    place(0.0, 0)
    itself = {capability: float(np.mean(of(items[capability]))) for capability, of in score.items()}
    found: dict[str, list[float]] = {capability: [] for capability in score}
    for draw in range(draws):
        curves = {capability: [first] for capability, first in itself.items()}
        for strength in at:
            place(strength, draw)
            for capability, of in score.items():
                curves[capability].append(float(np.mean(of(items[capability]))))
        for capability, curve in curves.items():
            found[capability].append(float(np.trapezoid(curve, [0.0, *at])) / at[-1])
    return found


def mean_area(found: Sequence[float], alpha: float) -> Interval:
    """The area over draws, within the scores' own range.

    >>> mean_area([0.5, 0.5, 0.6], 0.05).upper <= 1.0
    True
    """
    mean = student_interval(found, alpha)
    lower = None if mean.lower is None else max(0.0, mean.lower)
    upper = None if mean.upper is None else min(1.0, mean.upper)
    return Interval(mean.value, lower, upper, mean.alpha, mean.n, mean.method)


def area_change(candidate: Sequence[float], base: Sequence[float], alpha: float) -> Interval:
    """Candidate − base, paired by draw.

    >>> area_change([0.5, 0.7], [0.4, 0.6], 0.05).value
    0.1
    """
    return student_interval([round(c - b, 12) for c, b in zip(candidate, base, strict=True)], alpha)
