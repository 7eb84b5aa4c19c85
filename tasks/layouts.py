"""Which files of a folder are the model: where the weights, configuration, tokenizer and adapter lie.

Known trees: ``mlflow.transformers`` (``MLmodel``, ``model/``, ``components/tokenizer``, ``peft/``), a Trainer's
``artifacts/<name>/``, a plain folder as ``save_pretrained`` writes it, sharded or not, and a plain PEFT folder.
What the folder's consumers would load is what is located: where that is open, it is a defect and not a guess.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import yaml

from gate.domain.checkpoint import Layout
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.evidence import Defect, DefectCode

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
MAX_JSON = 16 << 20
MAX_YAML = 1 << 20
"""Largest documents parsed, in bytes; YAML takes a minute for what JSON takes a second for."""
MAX_LAYERS = 10_000

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Located:
    """Where the parts of a checkpoint lie inside ``root``.

    ``weights`` are the model's own; an adapter has none and may bring its base along (``shipped_base``).
    ``config`` is the parsed ``config.json`` (empty where absent). ``adapter`` and ``tokenizer`` are folders.
    ``mlmodel`` is the parsed ``MLmodel`` file, ``index`` the shards' tensor → file map as claimed.
    """

    root: Path
    layout: Layout = Layout.UNKNOWN
    weights: tuple[Path, ...] = ()
    config_file: Path | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    tokenizer: Path | None = None
    adapter: Path | None = None
    adapter_config: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    shipped_base: tuple[Path, ...] = ()
    mlmodel: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    index: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    defects: tuple[Defect, ...] = ()

    @property
    def transformers_flavor(self) -> Mapping[str, Any]:
        """What MLflow's transformers flavor says about the model; empty where it was not logged by that flavor."""
        flavors = self.mlmodel.get("flavors")
        flavor = flavors.get("transformers") if isinstance(flavors, dict) else None
        return flavor if isinstance(flavor, dict) else NOTHING

    @property
    def adapter_weights(self) -> Path | None:
        """The adapter's safetensors file."""
        return self.adapter / ADAPTER_WEIGHTS if self.adapter else None


class _Defects(list[Defect]):
    def note(self, code: DefectCode, message: str) -> None:
        self.append(Defect(code=code, message=message))


def locate(folder: Path) -> Located:
    """Finds the parts of the checkpoint in a folder; what is wrong with its layout becomes ``defects``.

    Raises NotFound where the folder itself is not there.
    """
    if not folder.is_dir():
        raise NotFound(f"expected a folder of artifacts at {folder}, found none; fetch the artifacts first")
    defects = _Defects()
    mlmodel = _document(folder / "MLmodel", yaml.safe_load, defects)
    model, adapter = _parts(folder, mlmodel, defects)
    config_file = model / "config.json" if model and is_file(model / "config.json") else None
    weights, index = _weights(folder, model, defects) if model else ((), NOTHING)
    found = Located(
        root=folder,
        weights=weights,
        config_file=config_file,
        config=_document(config_file, json.loads, defects),
        tokenizer=_tokenizer(folder, model, adapter),
        mlmodel=mlmodel,
        index=index,
    )
    found = _as_adapter(found, adapter, defects) if adapter else _as_model(found, defects)
    return replace(found, defects=tuple(defects))


def _as_adapter(found: Located, adapter: Path, defects: _Defects) -> Located:
    if not is_file(adapter / ADAPTER_WEIGHTS):
        defects.note(
            DefectCode.ARTIFACTS_MISSING,
            _missing(f"{ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}", _shown(found.root, adapter)),
        )
    config = _document(adapter / ADAPTER_CONFIG, json.loads, defects)
    return replace(
        found, layout=Layout.ADAPTER, adapter=adapter, adapter_config=config, weights=(), shipped_base=found.weights
    )


def _as_model(found: Located, defects: _Defects) -> Located:
    if found.weights:
        if found.config_file is None:
            message = _missing("config.json beside the weights", _shown(found.root, found.weights[0].parent))
            defects.note(DefectCode.ARTIFACTS_MISSING, message)
        return replace(found, layout=Layout.SHARDED if found.index else Layout.FULL)
    source = found.transformers_flavor.get("source_model_name")
    if source:
        message = f"expected weights, found only a reference to {source!r}; log the model with save_pretrained=True"
        defects.note(DefectCode.NOT_MEASURABLE, message)
    elif not defects:
        defects.note(DefectCode.ARTIFACTS_MISSING, _missing(f"{WEIGHTS} or {INDEX}", _shown(found.root, found.root)))
    return found


def _parts(folder: Path, mlmodel: Mapping[str, Any], defects: _Defects) -> tuple[Path | None, Path | None]:
    """The model's folder and the adapter's, as the tree's own loader would take them."""
    flavor = Located(root=folder, mlmodel=mlmodel).transformers_flavor
    if flavor:
        binary = _inside(folder, str(flavor.get("model_binary") or "model"), defects)
        peft = folder / "peft"
        adapter = peft if flavor.get("peft_adaptor") or is_file(peft / ADAPTER_CONFIG) else None
        return (binary if binary and binary.is_dir() else None), adapter
    folders = _folders(folder)
    model = _shallowest(folder, [f for f in folders if _holds_model(f)], "model", defects)
    adapter = _shallowest(folder, [f for f in folders if is_file(f / ADAPTER_CONFIG)], "adapter", defects)
    if model is None or adapter is None:
        return model, adapter
    if model == adapter:
        defects.note(
            DefectCode.NOT_MEASURABLE,
            f"expected a model or an adapter in {_shown(folder, model)}, found both: loaders differ in which they take; "
            "register the merged model without adapter files, or the adapter alone",
        )
        return None, None
    # A loader pointed at the root takes the nearer one; an adapter beside its base is the adapter.
    return (model, None) if _depth(folder, model) < _depth(folder, adapter) else (model, adapter)


def _holds_model(folder: Path) -> bool:
    return is_file(folder / WEIGHTS) or is_file(folder / INDEX) or _is_model_config(folder / "config.json")


def _is_model_config(path: Path) -> bool:
    return is_file(path) and "model_type" in _document(path, json.loads, _Defects())


def _shallowest(root: Path, found: Sequence[Path], what: str, defects: _Defects) -> Path | None:
    if not found:
        return None
    least = min(_depth(root, f) for f in found)
    nearest = [f for f in found if _depth(root, f) == least]
    if len(nearest) > 1:
        names = ", ".join(_shown(root, f) for f in nearest[:4])
        combined = " or of their combination (add_weighted_adapter)" if what == "adapter" else ""
        message = f"expected one {what}, found {len(nearest)}: {names}; register the folder of one of them{combined}"
        defects.note(DefectCode.NOT_MEASURABLE, message)
        return None
    return nearest[0]


def _folders(root: Path) -> list[Path]:
    return sorted(Path(at) for at, _, _ in os.walk(root, followlinks=False))


def _depth(root: Path, folder: Path) -> int:
    return len(folder.relative_to(root).parts)


def _shown(root: Path, folder: Path) -> str:
    # The root's own name is the cache's and means nothing to whoever registered the version.
    return "the folder" if folder == root else f"{folder.relative_to(root).as_posix()}/"


def _inside(root: Path, claimed: str, defects: _Defects) -> Path | None:
    """A path as some file of the folder claims it; refused where it leads out of the folder."""
    path = PurePosixPath(claimed)
    if path.is_absolute() or ".." in path.parts or "\\" in claimed:
        message = f"expected a path inside the folder, found {claimed!r}; log the model again"
        defects.note(DefectCode.ARTIFACTS_UNREADABLE, message)
        return None
    return root / path


def _weights(root: Path, model: Path, defects: _Defects) -> tuple[tuple[Path, ...], Mapping[str, str]]:
    """The safetensors files that transformers would read: the single file first, else the index's shards."""
    if is_file(model / WEIGHTS):
        return (model / WEIGHTS,), NOTHING
    if not is_file(model / INDEX):
        return (), NOTHING
    index = _document(model / INDEX, json.loads, defects).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(v, str) for v in index.values()):
        message = f"expected a weight_map of tensor names to files in {INDEX}, found none; save the model again"
        defects.note(DefectCode.ARTIFACTS_UNREADABLE, message)
        return (), NOTHING
    names = sorted(set(index.values()))
    shards = [path for name in names if (path := _inside(model, name, defects)) is not None]
    absent = [path.relative_to(root).as_posix() for path in shards if not is_file(path)]
    if absent:
        defects.note(
            DefectCode.ARTIFACTS_MISSING, _missing(f"the {len(names)} shards of {INDEX}", _shown(root, model), absent)
        )
    if absent or len(shards) < len(names):
        return (), NOTHING
    return tuple(shards), MappingProxyType(index)


def _tokenizer(root: Path, model: Path | None, adapter: Path | None) -> Path | None:
    candidates = [root / "components" / "tokenizer", adapter, model, root]
    return next((c for c in candidates if c and any(is_file(c / name) for name in TOKENIZER_FILES)), None)


def _missing(what: str, where: str, absent: Sequence[str] = ()) -> str:
    found = f"missing: {', '.join(absent[:5])}" if absent else f"none in {where}"
    return (
        f"expected {what}, found {found}; wait for the upload to end or upload the missing files, then register again"
    )


def is_file(path: Path) -> bool:
    """Whether a plain file is there; a link is not one."""
    return path.is_file() and not path.is_symlink()


def too_deep(config: Mapping[str, Any]) -> bool:
    """Whether a configuration claims more layers than any model has: building even a list of them could fill memory."""
    return any("layer" in key and isinstance(value, int) and value > MAX_LAYERS for key, value in config.items())


def _document(path: Path | None, parse: Callable[[bytes], Any], defects: _Defects) -> Mapping[str, Any]:
    """A parsed JSON or YAML object; empty where there is no file, a defect where it is not an object."""
    if path is None or not is_file(path):
        return NOTHING
    try:
        return read_object(path, parse)
    except InvalidInput as error:
        defects.note(DefectCode.ARTIFACTS_UNREADABLE, str(error))
        return NOTHING


def read_object(path: Path, parse: Callable[[bytes], Any] = json.loads) -> Mapping[str, Any]:
    """A JSON or YAML file that must hold an object; InvalidInput says what it holds instead."""
    advice = "write the file again and register a new version"
    limit = MAX_JSON if parse is json.loads else MAX_YAML
    if path.stat().st_size > limit:
        raise InvalidInput(f"{path.name}: expected at most {limit:,} bytes, found more; {advice}")
    try:
        parsed = parse(path.read_bytes())
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path.name}: expected an object, found {type(error).__name__}; {advice}") from error
    if not isinstance(parsed, dict):
        raise InvalidInput(f"{path.name}: expected an object, found {type(parsed).__name__}; {advice}")
    return parsed
