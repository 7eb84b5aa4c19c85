"""Examples to train on, and the samplers they are drawn with."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One example: the loss is on ``answer`` only. ``closed`` says whether the answer ends the sequence."""

    prompt: str
    answer: str
    closed: bool = True


Sampler = Callable[[random.Random], Row]


def row_sampler(rows: Iterable[Row]) -> Sampler:
    """Draws from the rows, each as likely as the other."""
    listed = list(rows)
    return lambda rng: rng.choice(listed)


def text_sampler(text: str, characters: int) -> Sampler:
    """Draws pieces of a text, each a row whose every character is learned."""

    def sample(rng: random.Random) -> Row:
        start = rng.randrange(len(text) - characters)
        return Row("", text[start : start + characters], closed=False)

    return sample
