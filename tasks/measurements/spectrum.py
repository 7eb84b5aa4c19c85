"""How many directions an update has: the stable rank of Δ, from the largest singular value of each of its matrices.

    stable rank = Σ ‖Δ_l‖²_F / Σ σ₁(Δ_l)²  over the changed matrices l

1 where each matrix moved along a single direction, as when a refusal direction is taken out; the more directions the
movement is spread over, the larger. Vectors (gains, biases) are of rank one whatever is done to them and do not count.

σ₁ of a dense matrix is found by Lanczos from a random start, which never finds too much, and with probability 1 − α
misses no more than Kuczyński and Woźniakowski (1992, Theorem 4.2) say; of a low-rank update it is exact.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.measurements.confidence import Interval
from tasks.measurements.perturbation import normals

STEPS = 40
"""Lanczos steps: products with the matrix and its transpose, each."""


@dataclass(frozen=True, slots=True)
class Energy:
    """One matrix's ‖Δ‖²_F, and its σ₁² between what was found and the most that can have been missed."""

    total: float
    top: float
    top_at_most: float


def dense_energy(delta: Tensor, seed: int, name: str, alpha: float, steps: int = STEPS) -> Energy:
    """The energy of a matrix (or of a tensor as out × rest); α is the risk that σ₁² is above its upper end.

    >>> found = dense_energy(torch.diag(torch.tensor([3.0, 4.0])), 0, "w", 0.01)
    >>> round(found.total, 6), round(found.top, 6), round(found.top_at_most, 6)
    (25.0, 16.0, 16.0)
    """
    matrix = delta.reshape(delta.shape[0], -1)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    total = float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
    size = matrix.shape[0]
    scale = math.sqrt(total)
    if not total:
        return Energy(0.0, 0.0, 0.0)
    start = normals(seed, f"spectrum/{name}", 0, [size])
    top = min(1.0, _lanczos(matrix, start.to(matrix.device), min(steps, size), scale)) * total
    if steps >= size:
        return Energy(total, top, top)
    missed = _missed(size, steps, alpha)
    return Energy(total, top, total if missed >= 1 else min(total, top / (1 - missed)))


def low_rank_energy(A: Tensor, B: Tensor, scale: float) -> Energy:
    """The energy of s·B·A from its factors, exactly.

    >>> found = low_rank_energy(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]]), 0.5)
    >>> round(found.total, 9), round(found.top, 9)
    (25.0, 25.0)
    """
    left, right = (torch.linalg.qr(side.double(), mode="r").R for side in (B, A.T))
    squares = torch.linalg.svdvals(left @ right.T).square() * scale**2
    return Energy(float(squares.sum()), float(squares.max()), float(squares.max()))


def stable_rank(energies: Iterable[Energy], alpha: float) -> Interval | None:
    """The stable rank of the changed matrices with its interval; None where none changed.

    ``alpha`` is the risk of all of them together.

    >>> found = stable_rank([Energy(25.0, 16.0, 20.0)], 0.05)
    >>> found.lower, found.value, found.upper
    (1.25, 1.5625, 1.5625)
    """
    changed = [energy for energy in energies if energy.total > 0]
    top = math.fsum(e.top for e in changed)
    if not top:
        return None
    total, most = math.fsum(e.total for e in changed), math.fsum(e.top_at_most for e in changed)
    value = max(1.0, total / top)
    risk = alpha if most > top else 0.0
    return Interval(value, min(value, max(1.0, total / most)), value, risk, len(changed), "lanczos, random start")


def _lanczos(matrix: Tensor, start: Tensor, steps: int, scale: float) -> float:
    """The largest eigenvalue of M·Mᵀ/scale² over the Krylov space of the start, kept orthogonal throughout."""
    dtype = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    matrix = matrix.to(dtype)
    basis = torch.zeros(steps, start.numel(), dtype=torch.float64, device=matrix.device)
    products = torch.zeros_like(basis)
    vector = start.double()
    for step in range(steps):
        for _ in range(2):  # twice is enough to lose no orthogonality
            vector = vector - basis[:step].T @ (basis[:step] @ vector)
        length = float(vector.norm())
        if length < 1e-12:
            basis, products = basis[:step], products[:step]
            break
        basis[step] = vector / length
        turned = matrix.T @ basis[step].to(dtype)
        products[step] = (matrix @ turned).double() / scale**2
        vector = products[step].clone()
    projected = basis @ products.T
    return float(torch.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def _missed(size: int, steps: int, alpha: float) -> float:
    """The share of the largest eigenvalue that is missed at most, with probability 1 − α over the start."""
    return (math.log(1.648 * math.sqrt(size) / alpha) / (2 * steps - 1)) ** 2
