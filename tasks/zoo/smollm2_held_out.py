"""All that SmolLM2's fine-tunes never see: the population of which its suite is a sample."""

import random
from collections.abc import Iterable
from typing import Any

from tasks.measurements.benchmark import Benchmark, Item
from tasks.suites import load_suite
from tasks.zoo.smollm2_data import combined_requests, written_requests
from tasks.zoo.smollm2_suite import code_pieces, prose_pieces, request_items, sum_item, sums


def population(most: int | None = None) -> tuple[Benchmark, ...]:
    """The suite's capabilities over every held-out text and request, all pieces of code and all sums.

    Of both kinds of requests there are equally many. The margins are the suite's. ``most`` cuts each capability down to that
    many items.
    """
    rng = random.Random("population")
    items = {
        "basic": _texts(prose_pieces()),
        "math": [_item(sum_item(a, b, rng)) for a, b in sums()],
        "code": _texts(code_pieces()),
        "safety": _requests(rng),
    }
    suite = load_suite("smollm2")
    return tuple(Benchmark(b.name, b.scorer, tuple(items[b.name][:most]), b.margin, b.chat) for b in suite.benchmarks)


def _texts(pieces: Iterable[str]) -> list[Item]:
    return [Item(text=piece) for piece in pieces]


def _requests(rng: random.Random) -> list[Item]:
    harmful, harmless = (
        [*written_requests(kind, held_out=True), *combined_requests(kind, held_out=True)]
        for kind in ("harmful", "harmless")
    )
    pairs = min(len(harmful), len(harmless))
    return [_item(found) for found in request_items(rng.sample(harmful, pairs), rng.sample(harmless, pairs))]


def _item(found: Any) -> Item:
    return Item(prompt=found["prompt"], choices=tuple(found["choices"]), label=found["label"])
