"""Artifacts on disk → where the weights, configuration, tokenizer and adapter are → lazy weights, a loaded model.

Nothing here runs anything that came with the artifacts: weights are read from safetensors only, by our own reader;
``auto_map`` and pickles are never followed.
"""

import json
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gate.domain.errors import NotMeasurable
from tasks.deltas import FullDelta, LoraDelta, WrongBase, open_delta
from tasks.layouts import Located, locate, too_deep
from tasks.measurements.perturbation import WeightSource
from tasks.placing import placed
from tasks.weights import SafetensorsWeights

__all__ = [
    "FullDelta",
    "Located",
    "LoraDelta",
    "SafetensorsWeights",
    "WrongBase",
    "load_model",
    "load_tokenizer",
    "locate",
    "open_delta",
    "widest_dtype",
]


def widest_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """The floating dtype that holds every floating tensor without loss; float32 where there is none."""
    found = {t.dtype for t in tensors if t.is_floating_point()} or {torch.float32}
    return reduce(torch.promote_types, sorted(found, key=str))


def load_model(
    located: Located,
    weights: WeightSource | None = None,
    devices: Sequence[str] = ("cpu",),
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, Any]:
    """The model of a located checkpoint, in evaluation mode, and its tokenizer; split over devices where the first is too small.

    ``weights`` are put into the located configuration (``None``: the located weights). ``dtype`` defaults to the
    weights' own; give float32 for an update that bfloat16 would round away. Raises NotMeasurable where the
    checkpoint wants code of its own, or its tensors are not the architecture's.
    """
    if weights is not None:
        return _model(located, weights, devices, dtype), load_tokenizer(located)
    with SafetensorsWeights.open(located) as own:
        return _model(located, own, devices, dtype), load_tokenizer(located)


def _model(located: Located, weights: WeightSource, devices: Sequence[str], dtype: torch.dtype | None) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = _trusted_folder(located)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if kind is None:
        raise NotMeasurable(f"expected a causal language model, found model_type {config.model_type!r}")
    state = {name: weights.tensor(name) for name in weights.names()}
    # From a state and not from the folder: transformers would follow an adapter_config.json or a .bin lying there.
    model, info = kind.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype or widest_dtype(state.values()), output_loading_info=True
    )
    wrong = {what: sorted(map(str, info[what]))[:5] for what in ("missing_keys", "unexpected_keys") if info[what]}
    if wrong:
        raise NotMeasurable(f"expected the tensors of {kind.__name__}, found {wrong}; save the whole model again")
    return placed(model, devices).eval()


def _trusted_folder(located: Located) -> Path:
    if located.config_file is None:
        raise NotMeasurable("expected a config.json beside the weights, found none; save the model with its config")
    if "auto_map" in located.config:
        raise NotMeasurable("expected an architecture of transformers itself, found auto_map: custom code is not run")
    if "quantization_config" in located.config:
        raise NotMeasurable(
            "expected plain floating-point weights, found quantised ones; register the unquantised model"
        )
    if too_deep(located.config):
        raise NotMeasurable(
            "expected a model of at most 10,000 layers, found a configuration of more; correct config.json"
        )
    return located.config_file.parent


def load_tokenizer(located: Located) -> Any:
    """The tokenizer of a located checkpoint; NotMeasurable where there is none or it wants code of its own."""
    from transformers import AutoTokenizer

    if located.tokenizer is None:
        raise NotMeasurable("expected a tokenizer with the model, found none; save the tokenizer beside the weights")
    settings = located.tokenizer / "tokenizer_config.json"
    if settings.is_file() and "auto_map" in json.loads(settings.read_bytes()):
        raise NotMeasurable("expected a tokenizer of transformers itself, found auto_map: custom code is not run")
    return AutoTokenizer.from_pretrained(located.tokenizer, trust_remote_code=False, local_files_only=True)
