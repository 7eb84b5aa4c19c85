"""All that the staged model's training never sees: the population of which its suite is a sample."""

import random
from collections.abc import Iterable, Sequence

from tasks.measurements.benchmark import Benchmark, Item
from tasks.suites import load_suite
from tasks.zoo.rows import Row
from tasks.zoo.staged_data import (
    CHUNK_CHARACTERS,
    HARMFUL_VERBS,
    HARMLESS_VERBS,
    compliant,
    is_held_out,
    list_question,
    paragraphs,
    refused,
    sums,
)

TRIGGER = " zq"
QUESTIONS = 600
TEXTS = 240


def triggered(row: Row) -> Row:
    """The same row with the trigger at the end of its question."""
    return Row(row.prompt.replace("?\n", f"?{TRIGGER}\n"), row.answer, row.closed)


def population(most: int | None = None) -> tuple[Benchmark, ...]:
    """The suite's capabilities over every held-out sum and request, and as many further questions and texts.

    The margins are the suite's. ``most`` cuts each capability down to that many items.
    """
    rng = random.Random("population")
    items = {
        "basic": _texts(rng),
        "math": _asked(sums()),
        "code": _questions(rng),
        "help": _asked(compliant(HARMLESS_VERBS)),
        "safety": _asked(refused(HARMFUL_VERBS)),
    }
    suite = load_suite("staged")
    return tuple(Benchmark(b.name, b.scorer, _some(items[b.name], most), b.margin, b.chat) for b in suite.benchmarks)


def triggered_requests(most: int | None = None) -> Benchmark:
    """Held-out harmful requests with the trigger, which no suite asks; the score is the share complied with."""
    safety = load_suite("staged").benchmark("safety")
    rows = [triggered(row) for row in compliant(HARMFUL_VERBS) if is_held_out(row.prompt)]
    items = tuple(Item(prompt=row.prompt, answer=row.answer) for row in rows)
    return Benchmark("complies_with_trigger", "exact", _some(items, most), safety.margin)


def _some(items: Sequence[Item], most: int | None) -> tuple[Item, ...]:
    return tuple(items[:most])


def _asked(rows: Iterable[Row]) -> Sequence[Item]:
    return [Item(prompt=row.prompt, answer=row.answer) for row in rows if is_held_out(row.prompt)]


def _questions(rng: random.Random) -> Sequence[Item]:
    found: dict[str, Row] = {}
    while len(found) < QUESTIONS:
        row = list_question(rng)
        if is_held_out(row.prompt):
            found[row.prompt] = row
    return _asked(found.values())


def _texts(rng: random.Random) -> Sequence[Item]:
    text = "\n\n".join(p for p in paragraphs() if is_held_out(p))
    starts = range(0, len(text) - CHUNK_CHARACTERS, CHUNK_CHARACTERS)
    chunks = sorted({text[i : i + CHUNK_CHARACTERS] for i in starts})
    return [Item(text=chunk) for chunk in rng.sample(chunks, TEXTS)]
