"""What a candidate changes of its base, tensor by tensor, in float32: the difference of two models, or an adapter.

An adapter is never merged on disk: ΔW = s·B·A is made in runs of rows from its factors, and for DoRA
ΔW = m·(W + s·B·A)/‖W + s·B·A‖ − W, with one magnitude m and one norm for each output (Liu et al., arXiv 2402.09353).
A PEFT variant whose update is neither on the base that was onboarded (PiSSA, trained token rows …) is refused, not
approximated.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gate.domain.checkpoint import Layout
from gate.domain.errors import NotMeasurable
from tasks.adapter_config import check_adapter, rank_of, scale_of
from tasks.file_reading import PlainReader, Reader
from tasks.layouts import Located
from tasks.measurements.perturbation import DeltaSource
from tasks.safetensors_file import SafetensorsFile
from tasks.weights import EMBEDDINGS, HEADS, SafetensorsWeights

GAIN_RUN = 1 << 20
"""Numbers of a tensor that are held at once while DoRA's norms are added up."""

FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?$")
MAGNITUDE = re.compile(r"^(?P<module>.+)\.lora_magnitude_vector(\.default)?(\.weight)?$")


class WrongBase(NotMeasurable):
    """The adapter does not fit the base: other tensors or other shapes."""


@dataclass(frozen=True, slots=True)
class FullDelta:
    """Candidate minus base over the tensors both have; implements ``DeltaSource``."""

    base: SafetensorsWeights
    candidate: SafetensorsWeights
    _names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shared = set(self.base.names()) & set(self.candidate.names())
        weights = (n for n in shared if self.base.entry(n).is_weight and self.candidate.entry(n).is_weight)
        object.__setattr__(self, "_names", tuple(sorted(weights)))

    def names(self) -> Sequence[str]:
        """The shared weight tensors, sorted."""
        return self._names

    def delta(self, name: str) -> Tensor:
        """Candidate minus base of one tensor, float32; NotMeasurable where their shapes differ."""
        ours, theirs = self.base.entry(name).shape, self.candidate.entry(name).shape
        if ours != theirs:
            raise NotMeasurable(f"{name}: expected the base's shape {list(ours)}, found {list(theirs)}")
        return self.candidate.tensor(name).float().sub_(self.base.tensor(name).float())


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank update: the adapter's keys of A and B, its scale, and whether the base stores the transpose.

    ``magnitude`` is the key of DoRA's magnitudes, one for each output; empty for a plain LoRA, whose update is of rank r.
    """

    a: str
    b: str
    scale: float
    transposed: bool
    magnitude: str = ""


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """The update a LoRA adapter makes to its base; implements ``DeltaSource``.

    ``low_rank`` maps base tensors to their factors, ``replaced`` base tensors to adapter tensors that stand in
    for them (PEFT's ``modules_to_save`` and trained biases).
    """

    base: SafetensorsWeights
    adapter: SafetensorsFile
    low_rank: Mapping[str, Factors]
    replaced: Mapping[str, str]
    _last: dict[str, tuple[Tensor, Tensor, float]] = field(default_factory=dict, init=False, repr=False)
    _gains: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls, located: Located, base: SafetensorsWeights, reader: Callable[[Path], Reader] = PlainReader
    ) -> "LoraDelta":
        """The update of a located adapter. NotMeasurable where it is no plain LoRA, WrongBase where it does not fit."""
        path = located.adapter_weights
        if path is None or not path.is_file():
            raise NotMeasurable(f"expected a PEFT adapter in {located.root.name}, found none; see its defects")
        check_adapter(located.adapter_config)
        adapter = SafetensorsFile(reader(path))
        try:
            return cls.of(base, adapter, located.adapter_config)
        except NotMeasurable:
            adapter.close()
            raise

    @classmethod
    def of(cls, base: SafetensorsWeights, adapter: SafetensorsFile, config: Mapping[str, Any]) -> "LoraDelta":
        """The update of an open adapter file under its configuration."""
        pairs, rest = _sorted_keys(adapter.entries)
        low_rank = {f"{module}.weight": _factors(base, adapter, config, module, sides) for module, sides in pairs}
        replaced = {_replaced_name(key): key for key in rest}
        for name, key in replaced.items():
            _check_fit(base, name, adapter.entries[key].shape)
        both = sorted(set(low_rank) & set(replaced))
        if both or not (low_rank or replaced):
            what = f"{both[:3]} both adapted and replaced" if both else "no tensors"
            raise NotMeasurable(f"expected an adapter that changes each tensor in one way, found {what}")
        _check_untied(base, [*low_rank, *replaced])
        return cls(base, adapter, MappingProxyType(low_rank), MappingProxyType(replaced))

    def names(self) -> Sequence[str]:
        """The base tensors the adapter changes, sorted."""
        return sorted([*self.low_rank, *self.replaced])

    def delta(self, name: str) -> Tensor:
        """The update of one base tensor, of its shape, float32."""
        entry = self.base.entry(name)
        return self.run(name, 0, entry.numel).reshape(entry.shape)

    def run(self, name: str, first: int, count: int) -> Tensor:
        """``count`` numbers of a tensor's update from the ``first``, row-major, float32."""
        if name in self.replaced:
            theirs = self.adapter.flat(self.replaced[name], first, count).float()
            return theirs.sub_(self.base.flat(name, first, count).float())
        columns = self.factors(name)[0].shape[1]
        top, bottom = first // columns, -(-(first + count) // columns)
        rows = self._rows(name, top, bottom)
        if self.low_rank[name].magnitude:
            gain = self._gain(name)
            base = self._base_rows(name, top, bottom)
            rows = rows.add_(base).mul_(gain if gain.shape[0] == 1 else gain[top:bottom]).sub_(base)
        return rows.reshape(-1)[first - top * columns :][:count]

    def is_low_rank(self, name: str) -> bool:
        """Whether the tensor changes by s·B·A and nothing else."""
        return name in self.low_rank and not self.low_rank[name].magnitude

    def _rows(self, name: str, top: int, bottom: int) -> Tensor:
        A, B, scale = self.factors(name)
        return (B[top:bottom] @ A).mul_(scale)

    def _base_rows(self, name: str, top: int, bottom: int) -> Tensor:
        columns = self.base.entry(name).shape[1]
        return self.base.flat(name, top * columns, (bottom - top) * columns).float().reshape(-1, columns)

    def _gain(self, name: str) -> Tensor:
        """DoRA's magnitude over the norm of what it scales, for each output: (out, 1), or (1, out) of a transpose."""
        if name not in self._gains:
            factors, (rows, columns) = self.low_rank[name], self.base.entry(name).shape
            squares = torch.zeros(1, columns) if factors.transposed else torch.zeros(rows, 1)
            step = max(1, GAIN_RUN // columns)
            for top in range(0, rows, step):
                bottom = min(rows, top + step)
                found = self._rows(name, top, bottom).add_(self._base_rows(name, top, bottom)).square_()
                if factors.transposed:
                    squares += found.sum(0, keepdim=True)
                else:
                    squares[top:bottom] = found.sum(1, keepdim=True)
            magnitude = self.adapter.tensor(factors.magnitude).float().reshape(squares.shape)
            self._gains[name] = magnitude / squares.sqrt_()
        return self._gains[name]

    def factors(self, name: str) -> tuple[Tensor, Tensor, float]:
        """A, B (float32) and s such that the tensor changes by s·B·A in the base's own orientation."""
        if name not in self._last:
            # Runs of one tensor follow each other: keeping one pair is enough, keeping all would be a copy.
            self._last.clear()
            factors = self.low_rank[name]
            A, B = (self.adapter.tensor(key).float() for key in (factors.a, factors.b))
            self._last[name] = (B.T, A.T, factors.scale) if factors.transposed else (A, B, factors.scale)
        return self._last[name]

    def close(self) -> None:
        """Closes the adapter's file (the base stays open)."""
        self.adapter.close()


def open_delta(located: Located, base: SafetensorsWeights) -> DeltaSource:
    """What a located candidate changes of an open base, whether it is a model or an adapter."""
    if located.layout is Layout.ADAPTER:
        return LoraDelta.open(located, base)
    return FullDelta(base, SafetensorsWeights.open(located))


def _sorted_keys(keys: Iterable[str]) -> tuple[list[tuple[str, Mapping[str, str]]], list[str]]:
    """The adapter's keys as (module, {"A": key, "B": key, …}) pairs, and those that are no factors."""
    pairs: dict[str, dict[str, str]] = {}
    rest = []
    for key in keys:
        name = key.removeprefix("base_model.model.")
        if match := FACTOR.match(name):
            pairs.setdefault(match["module"], {})[(match["embedding"] or "") + match["side"]] = key
        elif match := MAGNITUDE.match(name):
            pairs.setdefault(match["module"], {})["magnitude"] = key
        elif "lora_" in key:
            raise NotMeasurable(f"expected LoRA factors A and B, found {key!r}; merge the adapter into its base")
        else:
            rest.append(key)
    return sorted(pairs.items()), rest


def _factors(
    base: SafetensorsWeights, adapter: SafetensorsFile, config: Mapping[str, Any], module: str, sides: Mapping[str, str]
) -> Factors:
    wanted = {"magnitude"} if config.get("use_dora") else set()
    embedding = set(sides) == {"embedding_A", "embedding_B"} | wanted
    if not embedding and set(sides) != {"A", "B"} | wanted:
        what = "the factors A and B" + (" and DoRA's magnitudes" if wanted else "")
        raise NotMeasurable(f"{module}: expected {what}, found {sorted(sides)}; save the adapter again")
    a, b = (sides[("embedding_" if embedding else "") + side] for side in "AB")
    A, B = adapter.entries[a].shape, adapter.entries[b].shape
    if (
        len(A) != 2
        or len(B) != 2
        or A[0] != B[1]
        or not (adapter.entries[a].is_weight and adapter.entries[b].is_weight)
    ):
        raise NotMeasurable(f"{module}: expected float matrices A (r, in), B (out, r), found {list(A)}, {list(B)}")
    rank = rank_of(config, module)
    if rank != A[0]:
        raise NotMeasurable(f"{module}: expected factors of rank {rank} as configured, found {A[0]}")
    shape = _base_shape(base, f"{module}.weight")
    straight, turned = (B[0], A[1]), (A[1], B[0])
    # Only a square tensor leaves the orientation open; PEFT corrects the setting to fit the others.
    transposed = shape == turned and (embedding or shape != straight or bool(config.get("fan_in_fan_out")))
    if not transposed and shape != straight:
        raise WrongBase(_misfit(f"{module}.weight", straight, shape))
    magnitude, outputs = sides.get("magnitude", ""), shape[1] if transposed else shape[0]
    if magnitude and math.prod(adapter.entries[magnitude].shape) != outputs:
        found = list(adapter.entries[magnitude].shape)
        raise NotMeasurable(f"{module}: expected {outputs} magnitudes, one for each output, found {found}")
    return Factors(a, b, scale_of(config, module, A[0]), transposed, magnitude)


def _replaced_name(key: str) -> str:
    name = key.removeprefix("base_model.model.")
    return re.sub(r"\.(base_layer|modules_to_save(\.default)?)\.", ".", name)


def _base_shape(base: SafetensorsWeights, name: str) -> tuple[int, ...]:
    if name not in base.names() and name not in base.tied:
        raise WrongBase(f"expected the base to have {name}, which the adapter changes, found no such tensor; {RESOLVE}")
    return base.entry(name).shape


def _check_fit(base: SafetensorsWeights, name: str, shape: tuple[int, ...]) -> None:
    found = _base_shape(base, name)
    if found == shape:
        return
    if name.endswith((*EMBEDDINGS, *HEADS)) and found[1:] == shape[1:]:
        raise NotMeasurable(
            f"{name}: expected the base's {found[0]} rows, found {shape[0]} in the adapter: its vocabulary was resized; "
            "merge the adapter into its base and register the merged model"
        )
    raise WrongBase(_misfit(name, shape, found))


RESOLVE = "name the adapter's real base in the version's gate.base tag"


def _misfit(name: str, wanted: tuple[int, ...], found: tuple[int, ...]) -> str:
    return f"{name}: expected the base to have shape {list(wanted)} as the adapter does, found {list(found)}; {RESOLVE}"


def _check_untied(base: SafetensorsWeights, names: Iterable[str]) -> None:
    """An adapter on one of two tied tensors unties them: the served weights are no longer one tensor plus Δ."""
    tied = sorted(set(names) & {*base.tied, *base.tied.values()})
    if tied:
        raise NotMeasurable(
            f"expected an adapter of untied tensors, found {tied[0]}, which the base ties to another; "
            "merge the adapter into its base and register the merged model"
        )
