"""What a candidate changes of its base, tensor by tensor, in float32: the difference of two models, or an adapter.

An adapter is never merged on disk: ΔW = s·B·A is made in runs of rows from its factors. A PEFT variant whose update
is not s·B·A on the base that was onboarded (DoRA, PiSSA, trained token rows …) is refused, not approximated.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from gate.domain.checkpoint import Layout
from gate.domain.errors import InvalidInput, NotMeasurable
from tasks.file_reading import PlainReader, Reader
from tasks.layouts import Located
from tasks.measurements.perturbation import DeltaSource
from tasks.safetensors_file import SafetensorsFile
from tasks.weights import EMBEDDINGS, HEADS, SafetensorsWeights

HARMLESS = frozenset(
    {
        "alpha_pattern",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
"""Settings of ``adapter_config.json`` under which the update is still s·B·A; any other, when set, is refused."""

PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to initialise the factors that leave the base as it is. PiSSA, OLoRA, CorDA and LoftQ rewrite it when loaded."""

FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?$")
SAFE_PATTERN = re.compile(r"[\w.^$\\-]*")


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
    """A low-rank update: the adapter's keys of A and B, its scale, and whether the base stores the transpose."""

    a: str
    b: str
    scale: float
    transposed: bool


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
        A, B, scale = self.factors(name)
        columns = A.shape[1]
        top, bottom = first // columns, -(-(first + count) // columns)
        rows = (B[top:bottom] @ A).mul_(scale).reshape(-1)
        return rows[first - top * columns :][:count]

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


def check_adapter(config: Mapping[str, Any]) -> None:
    """Raises NotMeasurable unless the configuration is that of a plain LoRA on an unchanged base."""
    advice = "merge the adapter into its base and register the merged model"
    if config.get("peft_type") != "LORA":
        raise NotMeasurable(f"expected peft_type LORA, found {config.get('peft_type')!r}; {advice}")
    other = sorted(key for key, value in config.items() if value and key not in HARMLESS and not _plain(key, value))
    if other:
        raise NotMeasurable(f"expected a plain LoRA adapter, found {', '.join(other)} set; {advice}")
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise NotMeasurable(f"expected factors over an unchanged base, found init_lora_weights {start!r}; {advice}")
    patterns = [*_object(config, "alpha_pattern"), *_object(config, "rank_pattern")]
    wild = [p for p in patterns if not SAFE_PATTERN.fullmatch(p)]
    if wild:
        # PEFT takes them as regular expressions; a hostile one can run for hours.
        raise NotMeasurable(f"expected module names in alpha_pattern, found the expression {wild[0]!r}; {advice}")


def _plain(key: str, value: Any) -> bool:
    return (
        key == "auto_mapping"
        and isinstance(value, dict)
        and str(value.get("parent_library", "")).startswith("transformers.")
    )


def _object(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"adapter_config.json: expected an object as {key}, found {type(value).__name__}")
    return value


def scale_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor before B·A: α/r, or α/√r for rank-stabilised LoRA.

    >>> scale_of({"lora_alpha": 8, "r": 4}, "q_proj", 4), scale_of({"lora_alpha": 8, "use_rslora": True}, "q", 4)
    (2.0, 4.0)
    """
    alpha = _patterned(_object(config, "alpha_pattern"), module, config.get("lora_alpha"))
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise NotMeasurable(f"expected a number as lora_alpha, found {alpha!r}; save the adapter again")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _patterned(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that the module's name ends with."""
    return next((v for pattern, v in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), default)


def _sorted_keys(keys: Iterable[str]) -> tuple[list[tuple[str, Mapping[str, str]]], list[str]]:
    """The adapter's keys as (module, {"A": key, "B": key, …}) pairs, and those that are no factors."""
    pairs: dict[str, dict[str, str]] = {}
    rest = []
    for key in keys:
        match = FACTOR.match(key.removeprefix("base_model.model."))
        if match:
            pairs.setdefault(match["module"], {})[(match["embedding"] or "") + match["side"]] = key
        elif "lora_" in key:
            raise NotMeasurable(f"expected LoRA factors A and B, found {key!r}; merge the adapter into its base")
        else:
            rest.append(key)
    return sorted(pairs.items()), rest


def _factors(
    base: SafetensorsWeights, adapter: SafetensorsFile, config: Mapping[str, Any], module: str, sides: Mapping[str, str]
) -> Factors:
    embedding = set(sides) == {"embedding_A", "embedding_B"}
    if not embedding and set(sides) != {"A", "B"}:
        raise NotMeasurable(f"{module}: expected the factors A and B, found {sorted(sides)}; save the adapter again")
    a, b = (sides[("embedding_" if embedding else "") + side] for side in "AB")
    A, B = adapter.entries[a].shape, adapter.entries[b].shape
    if (
        len(A) != 2
        or len(B) != 2
        or A[0] != B[1]
        or not (adapter.entries[a].is_weight and adapter.entries[b].is_weight)
    ):
        raise NotMeasurable(f"{module}: expected float matrices A (r, in), B (out, r), found {list(A)}, {list(B)}")
    rank = _patterned(_object(config, "rank_pattern"), module, config.get("r"))
    if rank != A[0]:
        raise NotMeasurable(f"{module}: expected factors of rank {rank} as configured, found {A[0]}")
    shape = _base_shape(base, f"{module}.weight")
    straight, turned = (B[0], A[1]), (A[1], B[0])
    # Only a square tensor leaves the orientation open; PEFT corrects the setting to fit the others.
    transposed = shape == turned and (embedding or shape != straight or bool(config.get("fan_in_fan_out")))
    if not transposed and shape != straight:
        raise WrongBase(_misfit(f"{module}.weight", straight, shape))
    return Factors(a, b, scale_of(config, module, A[0]), transposed)


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
