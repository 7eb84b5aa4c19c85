"""Which GPU worker a job goes to: the one with the least memory that holds what measuring against its base takes.

A worker's memory is that of all its devices together: a base that one does not hold is split over them.
"""

from dataclasses import dataclass

from gate.domain.checkpoint import Base
from gate.domain.errors import InvalidInput, NotMeasurable
from gate.domain.evidence import ComputeDtype
from gate.domain.jobs import CPU_QUEUE, GPU_QUEUE

COPIES = 3
"""How many times the weights are in memory at most: themselves, their gradient, and the direction of an ascent."""
WORK_BYTES = 1_000_000_000
"""Room beside them for activations and the runtime."""
WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
GB = 1_000_000_000


def bytes_needed(base: Base, compute_dtype: ComputeDtype = ComputeDtype.STORED) -> int:
    """Bytes of device memory that measuring against a base takes at most, estimated from its number of parameters."""
    dtype = base.checkpoint.dtype if compute_dtype is ComputeDtype.STORED else compute_dtype.value
    return COPIES * base.checkpoint.parameters * WIDTHS.get(dtype, 4) + WORK_BYTES


@dataclass(frozen=True, slots=True)
class GpuSizes:
    """The memory that GPU workers have, in GB (10⁹ bytes), ascending: each size has a queue of its own.

    Without any there is one queue, whose workers take everything.
    """

    gb: tuple[int, ...] = ()

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues of GPU workers, those with the least memory first.

        >>> GpuSizes((24, 80)).queues, GpuSizes().queues
        (('gpu-24', 'gpu-80'), ('gpu',))
        """
        return tuple(f"{GPU_QUEUE}-{size}" for size in self.gb) or (GPU_QUEUE,)

    @property
    def all_queues(self) -> tuple[str, ...]:
        """Every queue of the product."""
        return (CPU_QUEUE, *self.queues)

    @property
    def largest(self) -> str:
        """The queue of the workers with the most memory."""
        return self.queues[-1]

    def queue_for(self, base: Base, compute_dtype: ComputeDtype = ComputeDtype.STORED) -> str:
        """The queue of the least memory that holds it; of the most for a base whose size is not known.

        Raises `NotMeasurable` where none does.
        """
        if not self.gb or base.checkpoint.parameters == 0:
            return self.largest
        need = bytes_needed(base, compute_dtype)
        for size, queue in zip(self.gb, self.queues, strict=True):
            if need <= size * GB:
                return queue
        raise NotMeasurable(
            f"expected a GPU worker that holds what measuring against base {base.name} takes, {need / GB:.0f} GB "
            f"by estimate, found {self.gb[-1]} GB at most; add workers of that size and name it in GATE_GPU_MEMORY_GB, "
            "then register the version again"
        )


ANY_SIZE = GpuSizes()
"""One queue for all GPU workers."""


def read_sizes(text: str) -> GpuSizes:
    """The sizes as settings write them. Raises `InvalidInput`.

    >>> read_sizes("80, 24").gb, read_sizes("").gb
    ((24, 80), ())
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise InvalidInput(f"GATE_GPU_MEMORY_GB: expected whole numbers of GB, as `24,80`, found {text!r}")
    return GpuSizes(tuple(sorted({int(word) for word in words})))
