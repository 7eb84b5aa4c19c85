"""One pass over base and candidate in runs of a million numbers: displacement, alignment, and what does not fit.

Memory does not grow with the model: a few runs of each side and of each capability's gradient, read ahead of the threads
that add them up. Whatever files the tensors lie in, and however many threads there are, the numbers are the same.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gate.domain.errors import GateError, InvalidInput
from gate.domain.evidence import Defect, DefectCode
from tasks.deltas import LoraDelta
from tasks.measurements.chunk_sums import ChunkSums, chunk_sums
from tasks.measurements.displacement import Displacement, DisplacementTally
from tasks.safetensors_file import SafetensorsFile, TensorEntry, in_file_order
from tasks.weights import EMBEDDINGS, HEADS, SafetensorsWeights

RUN = 1 << 20
"""Numbers compared at once."""

MOST_THREADS = 4
"""Threads that add up: more would wait for the two that hash, and each holds chunks in memory."""

Progress = Callable[[float], None]

DERIVED = ("rotary_emb.inv_freq", ".attn.masked_bias", "position_ids")
"""Buffers that old files store and every loader recomputes."""


def preconditioned_key(capability: str) -> str:
    """Under which name a capability's preconditioned gradient stands beside its gradient; no capability is called so."""
    return f"preconditioned:{capability}"


@dataclass(frozen=True, slots=True)
class Gradients:
    """The base's cached loss gradients, ``<capability>/<tensor>`` → tensor, read in runs; preconditioned ones by their own key."""

    file: SafetensorsFile | None = None

    @classmethod
    def open(cls, path: Path | None) -> "Gradients":
        """The gradients in a file; none where there is no file."""
        try:
            return cls(SafetensorsFile.open(path) if path else None)
        except InvalidInput as error:
            raise GateError(f"the base's cached gradients: {error}; profile the base again") from error

    @property
    def capabilities(self) -> Sequence[str]:
        """The capabilities there are gradients of, and the keys of preconditioned ones, sorted."""
        return sorted({key.partition("/")[0] for key in self.file.entries}) if self.file else []

    def run(self, name: str, shape: tuple[int, ...], first: int, count: int) -> Mapping[str, Tensor]:
        """Each capability's gradient of ``count`` numbers of a base tensor of that shape from the ``first``."""
        if self.file is None:
            return {}
        keys = {c: f"{c}/{name}" for c in self.capabilities if f"{c}/{name}" in self.file.entries}
        for key in keys.values():
            if self.file.entries[key].shape != shape:
                found = list(self.file.entries[key].shape)
                raise GateError(f"{key}: expected a gradient of shape {list(shape)}, found {found}; profile again")
        return {capability: self.file.flat(key, first, count) for capability, key in keys.items()}

    def close(self) -> None:
        """Closes the file."""
        if self.file is not None:
            self.file.close()


@dataclass(frozen=True, slots=True)
class Swept:
    """What one pass found."""

    displacement: Displacement
    defects: tuple[Defect, ...]


def sweep_model(
    base: SafetensorsWeights, candidate: SafetensorsWeights, gradients: Gradients, progress: Progress
) -> Swept:
    """A full model against its base: tensors of both once each, rows of a resized vocabulary as far as both go."""
    names, crew = _Names(base, candidate), _Crew(gradients.capabilities)
    extra_non_finite: list[str] = []
    changed_buffers: list[str] = []
    with crew:
        for name in _with_progress(candidate, progress):
            shared = names.shared_numbers(name)
            for first, count in runs(shared):
                theirs, ours = candidate.flat(name, first, count), base.flat(name, first, count)
                if name in names.weights:
                    crew.add(name, ours, theirs, gradients.run(name, base.entry(name).shape, first, count))
                elif not torch.equal(ours, theirs):
                    changed_buffers.append(name)
            if not _finite(candidate.flat, name, candidate.entry(name), shared):
                extra_non_finite.append(name)
    found = crew.tally.result()
    defects = [
        *non_finite_defects([*found.non_finite, *extra_non_finite]),
        *names.defects(),
        *_buffer_defects(changed_buffers),
    ]
    return Swept(found, tuple(defects))


def sweep_adapter(base: SafetensorsWeights, delta: LoraDelta, gradients: Gradients, progress: Progress) -> Swept:
    """An adapter against its base: every base tensor is read, for the norms; only the adapted ones differ."""
    crew, changed = _Crew(gradients.capabilities), set(delta.names())
    with crew:
        for name in _with_progress(base, progress):
            entry = base.entry(name)
            for first, count in runs(entry.numel if entry.is_weight else 0):
                ours = base.flat(name, first, count).float()
                theirs = ours + delta.run(name, first, count) if name in changed else ours
                crew.add(name, ours, theirs, gradients.run(name, entry.shape, first, count))
    found = crew.tally.result()
    return Swept(found, tuple(non_finite_defects(found.non_finite)))


def sweep_alone(files: Sequence[SafetensorsFile], progress: Progress) -> tuple[Defect, ...]:
    """A checkpoint without a base to compare with: only whether its numbers are numbers."""
    tensors = [(file, name) for file in files for name, _ in in_file_order(file.entries)]
    bad = []
    for done, (file, name) in enumerate(tensors, 1):
        if not _finite(file.flat, name, file.entries[name], 0):
            bad.append(name)
        progress(done / len(tensors))
    return tuple(non_finite_defects(bad))


class _Crew:
    """Adds chunks up in threads beside the reading; what they find is merged in the order they were read in.

    At most two chunks a thread are under way: the reader waits, memory does not grow. Torch starts no threads of its
    own meanwhile: with several at it already they would only take turns.
    """

    def __init__(self, capabilities: Sequence[str]) -> None:
        self.tally = DisplacementTally(capabilities)
        self._cores = torch.get_num_threads()
        self._threads = min(self._cores, MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="sweep")
        self._under_way: deque[Future[ChunkSums]] = deque()

    def __enter__(self) -> "_Crew":
        torch.set_num_threads(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._pool:
                while self._under_way and kind is None:
                    self._merge()
        finally:
            torch.set_num_threads(self._cores)

    def add(self, name: str, ours: Tensor, theirs: Tensor, gradients: Mapping[str, Tensor]) -> None:
        """Takes a chunk of base, candidate and gradients; what is wrong with it is raised here or later."""
        if len(self._under_way) >= 2 * self._threads:
            self._merge()
        self._under_way.append(self._pool.submit(chunk_sums, name, ours, theirs, gradients))

    def _merge(self) -> None:
        self.tally.merge(self._under_way.popleft().result())


def runs(length: int) -> Iterator[tuple[int, int]]:
    """(first, count) of each run that together cover ``length`` numbers.

    >>> list(runs(0)), [count for _, count in runs(RUN + 1)]
    ([], [1048576, 1])
    """
    return ((first, min(RUN, length - first)) for first in range(0, length, RUN))


def _with_progress(weights: SafetensorsWeights, progress: Progress) -> Iterator[str]:
    total = sum(weights.entry(name).numel for name in weights.names()) or 1
    done = 0
    for name in weights.in_file_order():
        yield name
        done += weights.entry(name).numel
        progress(done / total)


def _finite(flat: Callable[[str, int, int], Tensor], name: str, entry: TensorEntry, start: int) -> bool:
    rest = ((start + first, count) for first, count in runs(entry.numel - start if entry.is_weight else 0))
    return all(bool(torch.isfinite(flat(name, *run)).all()) for run in rest)


def non_finite_defects(names: Sequence[str]) -> Iterator[Defect]:
    """A defect that names the tensors with NaN or infinity in them."""
    if names:
        message = f"expected finite weights, found NaN or infinity in {shown(names)}; retrain or restore the checkpoint"
        yield Defect(code=DefectCode.NON_FINITE_WEIGHTS, message=message)


def _buffer_defects(names: Sequence[str]) -> Iterator[Defect]:
    if names:
        what = f"expected the base's constant buffers, found others in {shown(sorted(set(names)))}"
        message = f"{what}; fine-tune without changing them, or name the real base in the version's gate.base tag"
        yield Defect(code=DefectCode.ARCHITECTURE_CHANGED, message=message)


def shown(names: Sequence[str]) -> str:
    """A few names and how many more.

    >>> shown(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    few = ", ".join(names[:3])
    return f"{few} and {len(names) - 3} more" if len(names) > 3 else few


class _Names:
    """Which tensors of base and candidate are compared with each other, and which have no counterpart."""

    def __init__(self, base: SafetensorsWeights, candidate: SafetensorsWeights) -> None:
        self.base, self.candidate = base, candidate
        ours, theirs = set(_real(base.names())), set(_real(candidate.names()))
        self.missing, self.extra = sorted(ours - theirs), sorted(theirs - ours)
        both = sorted(ours & theirs)
        same = {n for n in both if base.entry(n).shape == candidate.entry(n).shape}
        self.resized = [n for n in both if n not in same and self._is_vocabulary(n)]
        self.misshapen = [n for n in both if n not in same and n not in self.resized]
        comparable = [*sorted(same), *self.resized]
        self.weights = {n for n in comparable if base.entry(n).is_weight and candidate.entry(n).is_weight}
        retyped = [n for n in comparable if base.entry(n).dtype != candidate.entry(n).dtype]
        self.rounded = [n for n in retyped if n in self.weights]
        self.recoded = [n for n in retyped if n not in self.weights]
        self.buffers = same - self.weights - set(retyped)

    def _is_vocabulary(self, name: str) -> bool:
        ours, theirs = self.base.entry(name).shape, self.candidate.entry(name).shape
        return name.endswith((*EMBEDDINGS, *HEADS)) and len(ours) == 2 and ours[1:] == theirs[1:]

    def shared_numbers(self, name: str) -> int:
        """How many numbers from the front both sides have: all, the common rows, or none."""
        if name not in self.weights and name not in self.buffers:
            return 0
        return min(self.base.entry(name).numel, self.candidate.entry(name).numel)

    def defects(self) -> Iterator[Defect]:
        """What does not fit, by kind."""
        again = "save the whole fine-tuned model, or name the real base in the version's gate.base tag"
        yield from _if(self.missing, DefectCode.MISSING_TENSORS, "expected every tensor of the base, missing", again)
        yield from _if(self.extra, DefectCode.EXTRA_TENSORS, "expected the base's tensors only, found also", again)
        shapes = [f"{n}: {list(self._shapes(n)[0])} → {list(self._shapes(n)[1])}" for n in self.misshapen]
        yield from _if(shapes, DefectCode.SHAPE_MISMATCH, "expected the base's shapes, found", again)
        rows = [f"{n}: {self._shapes(n)[0][0]} → {self._shapes(n)[1][0]} rows" for n in self.resized]
        review = "only the common rows were compared: review what was added or removed"
        yield from _if(rows, DefectCode.VOCABULARY_RESIZED, "expected the base's vocabulary, found", review)
        codes = [self._dtypes(n) for n in self.recoded]
        plain = "register the model before quantisation and quantise the approved one"
        yield from _if(codes, DefectCode.NOT_MEASURABLE, "expected plain floating-point weights, found", plain)
        dtypes = [self._dtypes(n) for n in self.rounded]
        rounded = "rounding counts as displacement: save in the base's dtype to avoid it"
        yield from _if(dtypes, DefectCode.DTYPE_CHANGED, "expected the base's dtypes, found", rounded)

    def _dtypes(self, name: str) -> str:
        return f"{name}: {plain_dtype(self.base, name)} → {plain_dtype(self.candidate, name)}"

    def _shapes(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.base.entry(name).shape, self.candidate.entry(name).shape


def _real(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if not name.endswith(DERIVED))


def plain_dtype(weights: SafetensorsWeights, name: str) -> str:
    """A tensor's dtype in torch's word for it: ``bfloat16``, ``float32``, ``int8`` …"""
    return str(weights.entry(name).dtype).removeprefix("torch.")


def _if(found: Sequence[str], code: DefectCode, what: str, advice: str) -> Iterator[Defect]:
    if found:
        yield Defect(code=code, message=f"{what} {shown(found)}; {advice}")
