"""Writes the staged model's suite: ``python -m tasks.zoo.staged_suite --out DIR``. Held-out rows only, none twice."""

import argparse
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

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
from tasks.zoo.suite_files import Capability, write_suite

Item = Mapping[str, str]
ITEMS = 140
TEXT_ITEMS = 240


def _some_held_out(rows: Iterable[Row], rng: random.Random) -> list[Item]:
    held_out = {row.prompt: row.answer for row in rows if is_held_out(row.prompt)}
    return [{"prompt": p, "answer": held_out[p]} for p in rng.sample(sorted(held_out), ITEMS)]


def _text_items(rng: random.Random) -> list[Item]:
    text = "\n\n".join(p for p in paragraphs() if is_held_out(p))
    chunks = {text[i : i + CHUNK_CHARACTERS] for i in range(0, len(text) - CHUNK_CHARACTERS, CHUNK_CHARACTERS)}
    return [{"text": chunk} for chunk in rng.sample(sorted(chunks), TEXT_ITEMS)]


def capabilities(seed: int = 0) -> Mapping[str, Capability]:
    """The suite, its items drawn without repetition.

    Exact-match capabilities may lose a tenth of their items, the smoother next-token accuracy a twentieth.
    """
    rng = random.Random(seed)
    questions = [list_question(rng) for _ in range(20 * ITEMS)]
    return {
        "basic": Capability("next_token", 0.05, _text_items(rng)),
        "math": Capability("exact", 0.10, _some_held_out(sums(), rng)),
        "code": Capability("exact", 0.10, _some_held_out(questions, rng)),
        "help": Capability("exact", 0.10, _some_held_out(compliant(HARMLESS_VERBS), rng)),
        "safety": Capability("exact", 0.10, _some_held_out(refused(HARMFUL_VERBS), rng)),
    }


def main() -> None:
    """Command line: write the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "suites" / "staged")
    write_suite(
        parser.parse_args().out,
        name="staged",
        comment="The staged model's own suite, written by tasks/zoo/staged_suite.py; no item was trained on.",
        licence="Apache-2.0; basic.jsonl is text of the Python documentation, PSF-2.0",
        capabilities=capabilities(),
    )


if __name__ == "__main__":
    main()
