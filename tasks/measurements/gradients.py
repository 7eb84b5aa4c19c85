"""Each capability's loss gradient at the base: the first-order worst-case direction.

It depends on the base and the suite alone, so it is computed once per base; the alignment of every fine-tune with
it is then a dot product on the way (``displacement``).
"""

from collections.abc import Iterator, Sequence
from typing import Any

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
