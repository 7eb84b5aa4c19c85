"""How far the update may be rescaled layer by layer: a smoothing certificate centred on the candidate.

    θ(c) = θ₀ + Σ_l c_l·Δ_l,  c ~ N(1, s²·I),  p = E S(θ(c))

Every such mixture centred at c′ instead of 1 keeps E S ≥ q as long as ‖c′ − 1‖₂ ≤ s·(Φ⁻¹(p) − Φ⁻¹(q)) (Cohen, Rosenfeld &
Kolter 2019 in the few dimensions that blocks are: there it says something, as it does not for all the weights). It
speaks of rescaled adapters, layer-wise merges and partial roll-backs, with the same noise added, and of no other change.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from tasks.measurements.benchmark import ScoreItems
from tasks.measurements.confidence import Interval, betting_interval
from tasks.measurements.perturbation import DeltaSource, normals

BlockOf = Callable[[str], str]
"""The block a tensor belongs to."""


@dataclass(frozen=True, slots=True)
class Blockwise:
    """An update with each block's share multiplied; implements ``DeltaSource``."""

    delta_source: DeltaSource
    multiples: Mapping[str, float]
    block_of: BlockOf

    def names(self) -> Sequence[str]:
        """The tensors of the update."""
        return self.delta_source.names()

    def delta(self, name: str) -> Tensor:
        """The tensor's update times its block's multiple."""
        return self.delta_source.delta(name) * self.multiples[self.block_of(name)]


def drawn_mixture(delta: DeltaSource, block_of: BlockOf, scale: float, seed: int, draw: int) -> Blockwise:
    """The update with c ~ N(1, scale²) for each block, keyed by seed, block and draw."""
    blocks = sorted({block_of(name) for name in delta.names()})
    multiples = {b: 1.0 + scale * float(normals(seed, f"mixture/{b}", draw, [1])) for b in blocks}
    return Blockwise(delta, multiples, block_of)


def mixture_scores(
    place: Callable[[int], object], score: Mapping[str, ScoreItems], items: Mapping[str, Sequence[int]], draws: int
) -> dict[str, list[float]]:
    """Each capability's mean score in each draw; ``place(draw)`` sets the weights to it."""
    found: dict[str, list[float]] = {capability: [] for capability in score}
    for draw in range(draws):
        place(draw)
        for capability, of in score.items():
            found[capability].append(float(np.mean(of(items[capability]))))
    return found


def merge_radius(scores: Sequence[float], scale: float, floor: float, alpha: float) -> Interval:
    """The certified ‖c′ − 1‖₂ from the draws' mean scores, of which the draw is the unit; 0 certifies nothing.

    >>> merge_radius([1.0] * 60, 0.5, 0.5, 0.05).value > 0.7
    True
    >>> merge_radius([0.0] * 60, 0.5, 0.5, 0.05).value
    0.0
    """
    p = betting_interval(scores, alpha)
    radius = 0.0 if p.lower is None else max(0.0, certified(p.lower, scale, floor))
    return Interval(radius, radius, None, alpha, len(scores), "smoothing over blocks, betting")


def certified(p: float, scale: float, floor: float) -> float:
    """s·(Φ⁻¹(p) − Φ⁻¹(q)); negative where the smoothed score p is below q already.

    >>> [round(certified(p, 0.5, q), 2) for p, q in ((0.99, 0.9), (0.99, 0.8), (0.95, 0.8))]
    [0.52, 0.74, 0.4]
    """
    if p <= 0.0:
        return -math.inf
    return scale * float(stats.norm.ppf(min(p, 1 - 1e-12)) - stats.norm.ppf(min(max(floor, 1e-12), 1 - 1e-12)))
