"""How much loss the worst small change of the input makes: the article's second kind of robustness.

value = max over ‖ε_t‖ ≤ ρ·‖e_t‖ of L(e + ε) − L(e), for the embeddings e_t of an item's tokens, searched by projected,
normalised gradient ascent. The ball is relative to each token's own embedding, so that a rescaling which computes the same
function changes nothing. Like every search it gives a **lower bound** of the worst case.

Tensor suffixes: B items, T tokens, H width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.measurements.benchmark import Scores

LossesOf = Callable[[], Tensor]
"""The differentiable loss of each item, in nats per token, from one forward pass over all of them."""

STRIDE = 2.5
"""Length of all steps together in radii: enough to cross the ball and turn."""


def input_sensitivity(model: Any, losses: LossesOf, *, radius: float, steps: int) -> Scores:
    """Each item's largest loss increase within ``radius`` of its tokens' embeddings; never negative.

    An item whose loss is not finite, or overflows on the way, keeps the largest finite increase that was seen.
    """
    model.eval()
    shift = _Shift(radius)
    embedding: nn.Module = model.get_input_embeddings()
    with _without_weight_gradients(model), shift.added_to(embedding):
        clean = losses().detach().double()
        best = torch.zeros_like(clean)
        for _ in range(steps):
            found = losses()
            best = _better(best, found, clean)
            found.sum().backward()
            if not shift.step(STRIDE / steps):
                break
        with torch.no_grad():
            best = _better(best, losses(), clean)
    return np.asarray(best.cpu().numpy(), dtype=np.float64)


def _better(best: Tensor, found: Tensor, clean: Tensor) -> Tensor:
    increase = found.detach().double() - clean
    return torch.where(torch.isfinite(increase) & (increase > best), increase, best)


@dataclass(slots=True)
class _Shift:
    """What is added to the embeddings: as large as they are, within the ball of each token."""

    radius: float
    shift: Tensor | None = None
    norms: Tensor | None = None

    @contextmanager
    def added_to(self, embedding: nn.Module) -> Iterator[None]:
        """Adds the shift to what the embedding gives, meanwhile."""
        handle = embedding.register_forward_hook(self._add)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, _module: nn.Module, _given: Any, out_BTH: Tensor) -> Tensor:
        if self.shift is None:
            self.norms = out_BTH.detach().float().norm(dim=-1, keepdim=True)
            self.shift = torch.zeros_like(out_BTH, dtype=torch.float32, requires_grad=True)
        return out_BTH + self.shift.to(out_BTH.dtype)

    def step(self, stride: float) -> bool:
        """One normalised step up and back onto the ball; False where there is no slope to follow."""
        assert self.shift is not None
        assert self.norms is not None
        slope_BTH = self.shift.grad
        if slope_BTH is None or not bool(torch.isfinite(slope_BTH).all()) or not bool(slope_BTH.any()):
            return False
        with torch.no_grad():
            room_BT1 = self.radius * self.norms
            unit_BTH = slope_BTH / slope_BTH.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
            moved_BTH = self.shift + stride * room_BT1 * unit_BTH
            length_BT1 = moved_BTH.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
            self.shift = moved_BTH * (room_BT1 / length_BT1).clamp(max=1.0)
        self.shift.requires_grad_(True)
        return True


@contextmanager
def _without_weight_gradients(model: nn.Module) -> Iterator[None]:
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, was in wanted:
            parameter.requires_grad_(was)
