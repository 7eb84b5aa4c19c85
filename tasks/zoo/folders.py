"""Model folders as Hugging Face writes them: loaded without code or network, saved with an adapter or in full."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps the sub-second bars of loading and saving out of the caller's own display."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load(folder: Path, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Model and tokenizer of a full checkpoint folder; in the folder's own dtype unless another is asked for."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=dtype or "auto"
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write an ordinary folder: safetensors, configuration, tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def with_adapter(model: Any, modules: Sequence[str], rank: int = 8) -> Any:
    """The model with a fresh LoRA adapter (α = 2r) on these modules; only the adapter is trained then."""
    shape = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(modules), task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # PEFT still asks transformers for an attribute by its former name.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, shape)


def save_adapter(model: Any, folder: Path, *, base_reference: str) -> None:
    """Write a PEFT folder: the adapter and its configuration, which names the base; no base weights."""
    model.peft_config["default"].base_model_name_or_path = base_reference
    # With "auto" PEFT asks the hub whether the base's vocabulary was resized.
    model.save_pretrained(folder, save_embedding_layers=False)


def dtype_of(folder: Path) -> torch.dtype:
    """The dtype that a checkpoint's configuration names, float32 where it names none."""
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("dtype", "float32")
    dtype = getattr(torch, named)
    assert isinstance(dtype, torch.dtype)
    return dtype
