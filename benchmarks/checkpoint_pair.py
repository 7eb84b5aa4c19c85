"""A checkpoint of any size and a small change of it, in bfloat16, made of random numbers."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = {"hidden_size": 64, "layers": 1, "vocabulary": 512}
MIDDLE = {"hidden_size": 512, "layers": 4, "vocabulary": 8000}
LARGE = {"hidden_size": 1024, "layers": 12, "vocabulary": 32000}


def configuration(hidden_size: int, layers: int, vocabulary: int) -> LlamaConfig:
    """A Llama of this size with tied embeddings."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )


def make_pair(folder: Path, size: dict[str, int]) -> tuple[Path, Path, int]:
    """Writes ``base`` and ``candidate`` into the folder; returns both and the number of their weights."""
    config = configuration(**size)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LlamaForCausalLM(config).named_parameters()}
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator).mul_(0.02).bfloat16() for name, shape in shapes.items()}
    paths = folder / "base", folder / "candidate"
    for path, tensors in zip(paths, (base, None), strict=True):
        path.mkdir(parents=True)
        config.save_pretrained(path)
        if tensors is None:
            for name, tensor in base.items():
                base[name] = (tensor.float() + 2e-4 * torch.randn(tensor.shape, generator=generator)).bfloat16()
        save_file(base, path / "model.safetensors", metadata={"format": "pt"})
    return *paths, sum(shape.numel() for shape in shapes.values())
