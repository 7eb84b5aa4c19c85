"""What a candidate says it is, against its base: configuration, tokenizer, chat template, and code it wants run.

Weights equal to the base's are another function under another configuration or vocabulary, so both are compared
whole, except for what only concerns training, storage or decoding.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gate.domain.errors import InvalidInput
from gate.domain.evidence import Defect, DefectCode
from tasks.file_reading import sha256_of
from tasks.layouts import Located, is_file, read_object, too_deep

IGNORED_SETTINGS = frozenset(
    {
        "_name_or_path",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "problem_type",
        "quantization_config",
        "return_dict",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    }
)
"""Settings that leave the function of given weights as it is, or that the tensors themselves tell better."""

TOKENIZER_SECTIONS = ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token")


def code_defects(found: Located) -> Iterator[Defect]:
    """Everything in the tree's own documents that would make a loader run code that came with it."""
    advice = "register a model that transformers loads without code of its own"
    for what, document in _documents(found):
        for key in ("auto_map", "custom_pipelines"):
            if document.get(key):
                yield _defect(DefectCode.CUSTOM_CODE, f"{what}: expected no {key}, found one; {advice}")
    flavors = found.mlmodel.get("flavors")
    for flavor, settings in flavors.items() if isinstance(flavors, dict) else ():
        for key in ("code", "model_code_path"):
            if isinstance(settings, dict) and settings.get(key):
                yield _defect(
                    DefectCode.CUSTOM_CODE,
                    f"MLmodel: expected no {key} in flavor {flavor}, found {settings[key]!r}; {advice}",
                )
        loader = settings.get("loader_module") if isinstance(settings, dict) else None
        if loader and not str(loader).startswith("mlflow."):
            message = f"MLmodel: expected a loader_module of mlflow, found {loader!r}; {advice}"
            yield _defect(DefectCode.CUSTOM_CODE, message)


def _documents(found: Located) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "config.json", found.config
    if found.tokenizer is not None:
        yield "tokenizer_config.json", _read(found.tokenizer / "tokenizer_config.json")


def quantised_defects(found: Located) -> Iterator[Defect]:
    """A defect where the configuration says that the weights are quantised codes."""
    settings = found.config.get("quantization_config")
    if settings:
        method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown"
        yield _defect(
            DefectCode.NOT_MEASURABLE,
            f"expected plain floating-point weights, found quantised ones ({method}); "
            "register the model before quantisation and quantise the approved one",
        )


def config_defects(base: Located, candidate: Located) -> Iterator[Defect]:
    """A defect where the candidate's configuration makes another function of the same weights."""
    if not (base.config and candidate.config):
        return
    ours, theirs = _settings(base), _settings(candidate)
    changed = sorted(
        key
        for key in {*ours, *theirs}
        if key not in IGNORED_SETTINGS and not _only_for_training(key) and ours.get(key) != theirs.get(key)
    )
    if changed:
        first = ", ".join(f"{k}: {_short(ours.get(k))} → {_short(theirs.get(k))}" for k in changed[:4])
        yield _defect(
            DefectCode.ARCHITECTURE_CHANGED,
            f"config.json: expected the base's architecture, found {len(changed)} settings changed ({first}); "
            "fine-tune without changing them, or name the real base in the version's gate.base tag",
        )


def _only_for_training(key: str) -> bool:
    return "dropout" in key or key.endswith("_pdrop")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _settings(found: Located) -> Mapping[str, Any]:
    """The configuration with every default filled in, so that leaving a setting out cannot hide a change of it.

    A model type that transformers does not know, or a configuration it refuses, is compared as it is written.
    """
    from transformers import AutoConfig

    if "auto_map" in found.config or found.config_file is None or too_deep(found.config):
        return found.config
    try:
        config = AutoConfig.from_pretrained(found.config_file.parent, trust_remote_code=False, local_files_only=True)
        known = set(type(config)().to_dict())
    except Exception:  # transformers raises whatever its validators raise; the raw text is compared instead
        return found.config
    # A setting that the architecture does not know (a trainer's note) has no effect on it.
    return {key: value for key, value in json.loads(config.to_json_string(use_diff=False)).items() if key in known}


def tokenizer_defects(base: Located, candidate: Located) -> Iterator[Defect]:
    """A defect where the candidate brings a tokenizer or a chat template other than the base's."""
    if base.tokenizer is None or candidate.tokenizer is None:
        return
    ours, theirs = _tokenizer(base.tokenizer), _tokenizer(candidate.tokenizer)
    changed = sorted(part for part in {*ours, *theirs} if ours.get(part) != theirs.get(part))
    if changed:
        yield _defect(
            DefectCode.TOKENIZER_CHANGED,
            f"expected the base's tokenizer, found a change in: {', '.join(changed)}; equal weights read other text "
            "with it: review the change, or save the base's tokenizer with the model",
        )


def _tokenizer(folder: Path) -> Mapping[str, str]:
    """The parts of a tokenizer that decide what the model reads, each as a digest or as text."""
    parts: dict[str, str] = {}
    whole = _read(folder / "tokenizer.json")
    parts.update({section: _digest(whole[section]) for section in TOKENIZER_SECTIONS if whole.get(section)})
    for name in ("tokenizer.model", "vocab.json", "merges.txt"):
        # The slow tokenizer's files only count where no tokenizer.json is read instead of them.
        if not whole and is_file(folder / name):
            parts[name] = sha256_of(folder / name)
    settings = _read(folder / "tokenizer_config.json")
    parts.update({token: _token(settings[token]) for token in SPECIAL_TOKENS if settings.get(token)})
    template = _chat_template(folder, settings)
    return parts | ({"chat template": template} if template else {})


def _token(value: Any) -> str:
    return str(value.get("content")) if isinstance(value, dict) else str(value)


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if is_file(path):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    template = settings.get("chat_template")
    return template.strip() if isinstance(template, str) else _digest(template) if template else ""


def _read(path: Path) -> Mapping[str, Any]:
    # What is too large to parse in little memory, or broken, is compared as bytes.
    try:
        return read_object(path) if is_file(path) else {}
    except InvalidInput:
        return {"model": sha256_of(path)}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _defect(code: DefectCode, message: str) -> Defect:
    return Defect(code=code, message=message)
