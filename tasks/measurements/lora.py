"""Norm and inner products of a low-rank update ΔW = s·B·A, from its factors: ΔW itself is never made.

Shapes: ``A`` is (rank, in), ``B`` is (out, rank), ΔW is (out, in), as PEFT stores them. Sums are float64.
"""

import torch
from torch import Tensor


def low_rank_norm_squared(A: Tensor, B: Tensor, scale: float) -> float:
    """‖s·B·A‖²_F = s²·tr(BᵀB · AAᵀ), in O(rank²·(in + out)).

    >>> low_rank_norm_squared(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]]), 0.5)
    25.0
    """
    A, B = A.double(), B.double()
    # Both Gram matrices are positive semi-definite, so the trace is not negative but for rounding.
    return max(0.0, scale * scale * float(torch.sum((B.T @ B) * (A @ A.T))))


def low_rank_dot(A: Tensor, B: Tensor, scale: float, gradient: Tensor) -> float:
    """⟨s·B·A, G⟩ = s·⟨A, BᵀG⟩ for a matrix G of the update's shape.

    >>> low_rank_dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), 2.0, torch.tensor([[1.0, 1.0]]))
    18.0
    """
    B, G = B.double(), gradient
    total = 0.0
    # Row blocks: a float64 copy of a whole embedding's gradient would double the stage's memory.
    for start in range(0, G.shape[0], 1024):
        rows = slice(start, start + 1024)
        total += float(torch.sum(A.double() * (B[rows].T @ G[rows].double())))
    return scale * total


def low_rank_support(A: Tensor, B: Tensor) -> int:
    """How many elements B·A can change: non-zero rows of B times non-zero columns of A.

    >>> low_rank_support(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0], [2.0]]))
    2
    """
    return int(torch.any(B != 0, dim=1).sum()) * int(torch.any(A != 0, dim=0).sum())
