"""Each capability's loss gradient at the base: the first-order worst-case direction.

It depends on the base and the suite alone, so it is computed once per base; the alignment of every fine-tune with
it is then a dot product on the way (``displacement``).

Fine-tunes rarely step along a gradient: Adam divides each weight's by its root mean square. So the direction that an attack
takes, to first order and per unit of what an optimiser does, is the preconditioned one,

    h = g / √v,  v = the mean over items of the squared gradient of each alone

(the diagonal of the empirical Fisher information, as Adam estimates it; Kingma and Ba, arXiv 1412.6980). Every weight of h lies
between −1 and 1: by how much the items agree. For a random Δ its cosine has the same null as that of g.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.measurements.benchmark import Benchmark, answer_loss
from tasks.measurements.language import Forwards


def capability_gradients(
    model: Any,
    tokenizer: Any,
    benchmarks: Sequence[Benchmark],
    *,
    batch: int = 8,
    forwards: Forwards | None = None,
) -> Iterator[tuple[str, str, Tensor]]:
    """Yields (capability, tensor name, gradient): the mean over all items of the reference answer's loss per token.

    The model must hold the base's weights. A tied tensor is named once, by its first name. What is yielded belongs to
    the caller: keep it no longer than needed, for each capability's gradient is as large as the model.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for benchmark in benchmarks:
        model.zero_grad(set_to_none=True)
        count = len(benchmark.items)
        for start in range(0, count, batch):
            indices = range(start, min(start + batch, count))
            (answer_loss(model, tokenizer, benchmark, indices, forwards) * (len(indices) / count)).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                yield benchmark.name, name, parameter.grad.detach()
    model.zero_grad(set_to_none=True)


def squared_gradients(
    model: Any, tokenizer: Any, benchmark: Benchmark, *, forwards: Forwards | None = None
) -> Mapping[str, Tensor]:
    """By tensor, the mean over the items of the square of each item's own gradient: float32 in the machine's memory.

    One backward pass for each item, and once the size of the model beside it.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    squares: dict[str, Tensor] = {}
    count = len(benchmark.items)
    for item in range(count):
        model.zero_grad(set_to_none=True)
        answer_loss(model, tokenizer, benchmark, [item], forwards).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                square = parameter.grad.detach().to("cpu", torch.float32).square_().div_(count)
                squares[name] = squares[name].add_(square) if name in squares else square
    model.zero_grad(set_to_none=True)
    return squares


def preconditioned(gradient: Tensor, square: Tensor) -> Tensor:
    """h of one tensor, float32; where no item has a gradient it is 0.

    >>> preconditioned(torch.tensor([3.0, -1.0, 0.0]), torch.tensor([9.0, 4.0, 0.0])).tolist()
    [1.0, -0.5, 0.0]
    """
    root = square.sqrt()
    return torch.where(root > 0, gradient.to("cpu", torch.float32) / root, 0.0)
