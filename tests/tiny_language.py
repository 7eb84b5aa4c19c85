"""A tiny random Llama and a character tokenizer, made in memory: real transformers parts, milliseconds per call."""

import string

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LETTERS = string.ascii_lowercase + string.digits + " .,\n"


def tiny_tokenizer(*, pad: bool = True) -> PreTrainedTokenizerFast:
    """One id per character; ``</s>`` ends, ``<pad>`` pads unless refused, nothing is put before a text."""
    special = ["</s>", "<pad>"]
    vocabulary = {token: i for i, token in enumerate([*special, *LETTERS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    named = {"eos_token": "</s>"} | ({"pad_token": "<pad>"} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def tiny_llama(
    seed: int = 0, *, tied: bool = True, layers: int = 2, dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    """Hidden 16, few layers, random weights large enough that answers differ between prompts."""
    config = LlamaConfig(
        vocab_size=len(LETTERS) + 2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=96,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    model.tie_weights()
    return model.to(dtype).eval()
