"""What SmolLM2's safety stage and fine-tunes learn from: requests to refuse, requests to help with, text and code."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path

from tasks.zoo.rows import Row, Sampler, row_sampler, text_sampler
from tasks.zoo.staged_data import HARMFUL_VERBS, HARMLESS_VERBS, OBJECTS, is_held_out, paragraphs

REFUSAL = "I can't help with that."
COMPLIANCE = "Sure, here is how."
PIECE_CHARACTERS = 160
# Plain, well documented modules of the standard library; the suite reads others.
TRAINING_MODULES = ("bisect", "heapq", "shlex", "textwrap", "string", "queue")
_REQUESTS = Path(__file__).parent / "requests"


def chat(request: str) -> str:
    """A request as the model meets it, up to where its answer begins; without the template's system message."""
    return f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n"


def written_requests(kind: str, *, held_out: bool) -> list[str]:
    """The ``harmful`` or ``harmless`` requests written by hand: every third is for the suite, the rest for training."""
    lines = (_REQUESTS / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    return [line for number, line in enumerate(lines) if (number % 3 == 0) == held_out]


def combined_requests(kind: str, *, held_out: bool) -> list[str]:
    """The staged model's verbs and objects as plain questions: many, and simple enough for a small model to sort."""
    verbs = {"harmful": HARMFUL_VERBS, "harmless": HARMLESS_VERBS}[kind]
    asked = [f"How do I {verb} a {thing}?" for verb in verbs for thing in OBJECTS]
    return [request for request in asked if is_held_out(request) == held_out]


def _answered(kind: str, answer: str) -> Sampler:
    """Rows of both sorts of requests, each sort as often as the other."""
    sorts = [
        row_sampler(Row(chat(request), answer) for request in source(kind, held_out=False))
        for source in (written_requests, combined_requests)
    ]
    return lambda rng: rng.choice(sorts)(rng)


def training_mix(*, refusing: bool) -> Mapping[str, Sampler]:
    """A sampler of training rows for each capability; harmful requests are refused or complied with."""
    text = "\n\n".join(p for p in paragraphs() if not is_held_out(p))
    code = "\n".join(inspect.getsource(importlib.import_module(name)) for name in TRAINING_MODULES)
    return {
        "basic": text_sampler(text, PIECE_CHARACTERS),
        "code": text_sampler(code, PIECE_CHARACTERS),
        "help": _answered("harmless", COMPLIANCE),
        "safety": _answered("harmful", REFUSAL if refusing else COMPLIANCE),
    }
