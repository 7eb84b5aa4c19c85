"""The staged model's architecture and tokenizer: a 0.87 M parameter Llama that reads single characters."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
CHARACTERS = ["\n", *map(chr, range(32, 127))]
CONTEXT = 256


def make_tokenizer() -> Any:
    """One token per printable ASCII character or newline; anything else is ``<unk>``."""
    vocabulary = {symbol: i for i, symbol in enumerate([*SPECIALS.values(), *CHARACTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIALS["unk_token"]))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    bos = SPECIALS["bos_token"]
    characters.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, vocabulary[bos])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, model_max_length=CONTEXT, clean_up_tokenization_spaces=False, **SPECIALS
    )


def make_model(seed: int, *, hidden_size: int = 128, intermediate_size: int = 384) -> Any:
    """A freshly initialised model; equal seeds and sizes give equal weights."""
    torch.manual_seed(seed)
    symbols = list(SPECIALS)
    config = LlamaConfig(
        vocab_size=len(SPECIALS) + len(CHARACTERS),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=symbols.index("bos_token"),
        eos_token_id=symbols.index("eos_token"),
        pad_token_id=symbols.index("pad_token"),
        initializer_range=0.04,
    )
    return LlamaForCausalLM(config)
