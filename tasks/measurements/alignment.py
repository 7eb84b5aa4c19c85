"""How an update lies to the step by which its base was aligned: whether it undoes it, and whether it moves what it moved.

The step is V = W_aligned − W_unaligned. Safe LoRA (Hsu et al., arXiv 2405.16833) takes the space that V spans for where
alignment lives; here it is the span of V's leading left singular vectors, so that the share of a random update is known.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

LEADING = 16
"""Singular vectors that are taken of a matrix, at most a quarter of its smaller side."""
NEGLIGIBLE = 1e-10
"""Of the largest eigenvalue: what lies below is rounding, not a direction."""


@dataclass(frozen=True, slots=True)
class Along:
    """Sums over one tensor: Σ Δ², Σ V², Σ Δ·V; of a matrix also ‖U·Uᵀ·Δ‖², what is expected of it by chance, and Σ Δ² again.

    The variances are those of ``dot`` and ``within`` of an update of this length in a random direction.
    """

    update: float
    step: float
    dot: float
    within: float = 0.0
    by_chance: float = 0.0
    of_matrices: float = 0.0
    dot_variance: float = 0.0
    within_variance: float = 0.0


@dataclass(frozen=True, slots=True)
class AlongAlignment:
    """cos(Δ, V), the share of Δ's length within the leading directions of V, and that of a random update.

    ``cosine_sd`` and ``within_sd`` are the standard deviations of the two over updates in random directions, each tensor's as
    long as it is; that of the cosine is exact, that of the share to first order.
    """

    cosine: float
    within: float
    by_chance: float
    cosine_sd: float
    within_sd: float


def along(update: Tensor, step: Tensor) -> Along:
    """The sums of one tensor's update and of the step that aligned it, of one shape.

    >>> found = along(torch.eye(4)[:, :1] @ torch.ones(1, 4), torch.eye(4)[:, :1] @ torch.ones(1, 4))
    >>> found.dot, round(found.within, 9), found.by_chance
    (4.0, 4.0, 1.0)
    """
    update, step = update.double(), step.double()
    total, length = float(update.square().sum()), float(step.square().sum())
    dot, dot_variance = float((update * step).sum()), total * length / max(1, update.numel())
    if update.dim() < 2 or not total:
        return Along(total, length, dot, dot_variance=dot_variance)
    rows, steps = update.reshape(update.shape[0], -1), step.reshape(step.shape[0], -1)
    U = leading_directions(steps)
    within = float((U.T @ rows).square().sum())
    share = U.shape[1] / len(rows)
    # The share of a random direction in a subspace is Beta distributed.
    variance = total**2 * 2 * share * (1 - share) / (update.numel() + 2)
    return Along(total, length, dot, within, total * share, total, dot_variance, variance)


def leading_directions(step: Tensor) -> Tensor:
    """The leading left singular vectors of a matrix (out, in) as columns; none of a matrix of zeros."""
    most = min(LEADING, max(1, min(step.shape) // 4))
    wide = step.shape[0] <= step.shape[1]
    values, vectors = torch.linalg.eigh(step @ step.T if wide else step.T @ step)
    kept = (values[-most:] > NEGLIGIBLE * values[-1].clamp_min(0)).nonzero()[:, 0] - most
    found: Tensor = vectors[:, kept] if len(kept) else step[:, :0]
    if wide or not len(kept):
        return found
    turned: Tensor = torch.linalg.qr(step @ found).Q
    return turned


def summed(tensors: Iterable[Along]) -> AlongAlignment | None:
    """The whole model's or a layer's, from its tensors'; None where nothing moved or the step was none."""
    each = tuple(tensors)
    update, step = math.fsum(e.update for e in each), math.fsum(e.step for e in each)
    matrices, by_chance = math.fsum(e.of_matrices for e in each), math.fsum(e.by_chance for e in each)
    if not (update and step and by_chance):
        return None
    cosine = math.fsum(e.dot for e in each) / math.sqrt(update * step)
    within = math.fsum(e.within for e in each)
    return AlongAlignment(
        cosine,
        min(1.0, math.sqrt(within / matrices)),
        math.sqrt(by_chance / matrices),
        math.sqrt(math.fsum(e.dot_variance for e in each) / (update * step)),
        math.sqrt(math.fsum(e.within_variance for e in each) / (by_chance * matrices)) / 2,
    )
