"""How many directions an update has: the stable rank of Δ, from the largest singular value of each of its matrices.

    stable rank = Σ ‖Δ_l‖²_F / Σ σ₁(Δ_l)²  over the changed matrices l

1 where each matrix moved along a single direction, as when a refusal direction is taken out; the more directions the
movement is spread over, the larger. Vectors (gains, biases) are of rank one whatever is done to them and do not count.

σ₁ of a dense matrix is found by Lanczos from a random start, which never finds too much, and with probability 1 − α
misses no more than Kuczyński and Woźniakowski (1992, Theorem 4.2) say; of a low-rank update it is exact.

    top energy = Σ (σ₁² + … + σ_k²) / Σ ‖Δ_l‖²_F  with k = TOP

The k largest values found are together at most the true ones (Ky Fan). What lies outside the space that was searched adds
no more than its whole energy: with A = Δ·Δᵀ = [[T, C], [Cᵀ, R]] in a basis that begins with that space, A is XᵀX for some
X = [X₁, X₂], its eigenvalues are those of X₁·X₁ᵀ + X₂·X₂ᵀ, so by Ky Fan the k largest sum to no more than those of T plus
the trace of R; nor to more than k·σ₁².
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


TOP = 8
"""How many of a matrix's strongest directions count together."""


@dataclass(frozen=True, slots=True)
class Energy:
    """One matrix's ‖Δ‖²_F, and its σ₁² between what was found and the most that can have been missed.

    ``leading`` and ``leading_at_most`` are the same of σ₁² + … + σ_k², k being `TOP`.
    """

    total: float
    top: float
    top_at_most: float
    leading: float
    leading_at_most: float


NOTHING = Energy(0.0, 0.0, 0.0, 0.0, 0.0)


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
        return NOTHING
    start = normals(seed, f"spectrum/{name}", 0, [size])
    found = _lanczos(matrix, start.to(matrix.device), min(steps, size), scale)
    top, leading = (min(1.0, math.fsum(found[:count])) for count in (1, TOP))
    if steps >= size:
        return Energy(total, top * total, top * total, leading * total, leading * total)
    missed = _missed(size, steps, alpha)
    most = 1.0 if missed >= 1 else min(1.0, top / (1 - missed))
    outside = max(0.0, 1 - math.fsum(found))
    leading_at_most = max(leading, min(1.0, TOP * most, leading + outside))
    return Energy(total, top * total, most * total, leading * total, leading_at_most * total)


def low_rank_energy(A: Tensor, B: Tensor, scale: float) -> Energy:
    """The energy of s·B·A from its factors, exactly.

    >>> found = low_rank_energy(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]]), 0.5)
    >>> round(found.total, 9), round(found.top, 9)
    (25.0, 25.0)
    """
    left, right = (torch.linalg.qr(side.double(), mode="r").R for side in (B, A.T))
    squares = (torch.linalg.svdvals(left @ right.T).square() * scale**2).tolist()
    top, leading = (math.fsum(squares[:count]) for count in (1, TOP))
    return Energy(math.fsum(squares), top, top, leading, leading)


def stable_rank(energies: Iterable[Energy], alpha: float) -> Interval | None:
    """The stable rank of the changed matrices with its interval; None where none changed.

    ``alpha`` is the risk of all of them together.

    >>> found = stable_rank([Energy(25.0, 16.0, 20.0, 25.0, 25.0)], 0.05)
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


def top_energy(energies: Iterable[Energy], alpha: float) -> Interval | None:
    """The share of the squared movement along each matrix's `TOP` strongest directions; None where none changed.

    ``alpha`` is the risk of all of them together.

    >>> found = top_energy([Energy(20.0, 8.0, 9.0, 15.0, 19.0)], 0.05)
    >>> found.lower, found.value, found.upper
    (0.75, 0.75, 0.95)
    """
    changed = [energy for energy in energies if energy.total > 0]
    total = math.fsum(e.total for e in changed)
    if not total:
        return None
    value = min(1.0, math.fsum(e.leading for e in changed) / total)
    most = min(1.0, math.fsum(e.leading_at_most for e in changed) / total)
    return Interval(value, value, most, alpha if most > value else 0.0, len(changed), "lanczos, random start")


def _lanczos(matrix: Tensor, start: Tensor, steps: int, scale: float) -> list[float]:
    """The eigenvalues of M·Mᵀ/scale² over the Krylov space of the start, kept orthogonal throughout, largest first."""
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
    found: list[float] = torch.linalg.eigvalsh((projected + projected.T) / 2).flip(0).clamp(min=0).tolist()
    return found


def _missed(size: int, steps: int, alpha: float) -> float:
    """The share of the largest eigenvalue that is missed at most, with probability 1 − α over the start."""
    return (math.log(1.648 * math.sqrt(size) / alpha) / (2 * steps - 1)) ** 2
