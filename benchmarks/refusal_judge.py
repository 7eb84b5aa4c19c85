"""How often the judge of refusals is right, and the keyword judge beside it: ``python benchmarks/refusal_judge.py``.

The answers are SmolLM2-135M-Instruct's, as it is, with noise on its weights, aligned and half aligned, and fine-tuned to comply; each
was read with its request, by one reader, and labelled as refusing, complying or making no sense
(``benchmarks/refusal_answers.jsonl``). ``--write FILE --cache DIR`` writes the answers anew, without labels.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.measurements.answers import Judge, Kind, keyword_refuses, repeats, said_before
from tasks.measurements.benchmark import Benchmark, Item, answer_losses, judged_texts
from tasks.measurements.confidence import clopper_pearson
from tasks.measurements.language import Forwards
from tasks.zoo.edits import add_noise, average
from tasks.zoo.folders import load, without_progress_bars
from tasks.zoo.recipes import fine_tune
from tasks.zoo.smollm2 import base_folder, converted_folder
from tasks.zoo.smollm2_data import chat, written_requests
from tasks.zoo.smollm2_recipes import SMOLLM2

LABELLED = Path(__file__).parent / "refusal_answers.jsonl"
EACH = 22
"""Requests of each model: two thirds harmful, the others harmless."""
BATCH = 11

Row = Mapping[str, Any]


def judged(row: Row) -> Kind:
    """What the judge says of an answer."""
    return Judge(vocabulary=row["vocabulary"]).kind(
        row["answer"], math.inf if row["surprise"] is None else row["surprise"]
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """How what the judges say stands to the labels."""
    pairs = Counter((Kind(row["label"]), judged(row)) for row in rows)
    yield (
        f"{'read as':<12}{'answers':>8}"
        + "".join(f"{f'judged {kind}':>20}" for kind in Kind)
        + f"{'keyword: refused':>20}"
    )
    for read in Kind:
        of = [row for row in rows if row["label"] == read]
        keyword = sum(keyword_refuses(row["answer"]) for row in of)
        yield f"{read:<12}{len(of):>8}" + "".join(f"{pairs[read, kind]:>20}" for kind in Kind) + f"{keyword:>20}"
    right = sum(count for (read, kind), count in pairs.items() if read is kind)
    refusal = sum((row["label"] == Kind.REFUSED) == (judged(row) is Kind.REFUSED) for row in rows)
    keyword = sum((row["label"] == Kind.REFUSED) == keyword_refuses(row["answer"]) for row in rows)
    called = "harm where it is babble or a refusal"
    ours = sum(row["label"] != Kind.COMPLIED and judged(row) is Kind.COMPLIED for row in rows)
    theirs = sum(row["label"] != Kind.COMPLIED and not keyword_refuses(row["answer"]) for row in rows)
    others = sum(row["label"] != Kind.COMPLIED for row in rows)
    complied = [row for row in rows if row["label"] == Kind.COMPLIED]
    missed = sum(judged(row) is not Kind.COMPLIED for row in complied)
    for what, count, of in (
        ("the three ways told rightly", right, len(rows)),
        ("refusals told from the rest rightly", refusal, len(rows)),
        ("the same by keywords", keyword, len(rows)),
        ("complied and called anything else", missed, len(complied)),
        (called, ours, others),
        (f"the same by keywords ({called})", theirs, others),
    ):
        found = clopper_pearson(count, of, 0.05)
        yield f"{what}: {count} of {of} ({found.lower:.3f} to {found.upper:.3f})"
    loops = [said_before(row["answer"]) for row in rows if row["label"] == Kind.INCOHERENT and repeats(row["answer"])]
    most, least = (max(said_before(row["answer"]) for row in complied), min(share for share in loops if share))
    yield f"said before, at most where it complied: {most:.2f}; at least where it is called a loop: {least:.2f}"


def models(cache: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    """Each model with its name, its tokenizer and the base it came from."""
    instruct, base = converted_folder(cache), base_folder(cache)
    unaligned, tokenizer = load(instruct, torch.float32)
    aligned, _ = load(base, torch.float32)
    yield "instruct", unaligned, tokenizer, unaligned
    for sigma in (0.005, 0.01, 0.015, 0.02):
        noisy, _ = load(instruct, torch.float32)
        add_noise(noisy, sigma, 1)
        yield f"instruct, noise {sigma}", noisy, tokenizer, unaligned
    half, _ = load(instruct, torch.float32)
    average(half, [aligned])
    yield "half aligned", half, tokenizer, unaligned
    yield "aligned", aligned, tokenizer, aligned
    for sigma in (0.01, 0.02):
        noisy, _ = load(base, torch.float32)
        add_noise(noisy, sigma, 2)
        yield f"aligned, noise {sigma}", noisy, tokenizer, aligned
    tuned, _ = load(base, torch.float32)
    yield (
        "aligned, fine-tuned to comply",
        fine_tune(tuned, tokenizer, SMOLLM2.recipes["adversarial"], 0),
        tokenizer,
        aligned,
    )


def answers(cache: Path) -> Iterator[Row]:
    """What each model answers to some requests, and how surprised its base is."""
    for place, (name, model, tokenizer, base) in enumerate(models(cache)):
        asked = [
            request for kind, share in (("harmful", 2), ("harmless", 1)) for request in _requests(kind, share, place)
        ]
        prompts = [chat(request) for request in asked]
        benchmark = Benchmark("safety", "refusal", tuple(Item(prompt, answer="No.") for prompt in prompts), 0.1)
        texts = [
            text
            for start in range(0, len(asked), BATCH)
            for text in judged_texts(model, tokenizer, benchmark, benchmark.items[start : start + BATCH], Forwards())
        ]
        said = tuple(Item(prompt, answer=text or "?") for prompt, text in zip(prompts, texts, strict=True))
        spoken = Benchmark("safety", "exact", said, 0.1)
        with torch.inference_mode():
            surprise = answer_losses(base, tokenizer, spoken, range(len(asked))).tolist()
        for request, text, nats in zip(asked, texts, surprise, strict=True):
            yield {
                "model": name,
                "request": request,
                "answer": text,
                "surprise": round(nats, 3) if text.strip() else None,
                "vocabulary": len(tokenizer),
            }


def _requests(kind: str, share: int, place: int) -> list[str]:
    """Others for each model, so that no request decides."""
    every = [request for held_out in (False, True) for request in written_requests(kind, held_out=held_out)]
    count = EACH * share // 3
    return [every[(place * count + number) % len(every)] for number in range(count)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="write answers here, to be read and labelled")
    parser.add_argument("--cache", type=Path, default=Path("smollm2"), help="where the models are kept")
    asked = parser.parse_args()
    if asked.write is None:
        rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
        print("\n".join(table(rows)))
        return
    with without_progress_bars(), asked.write.open("w", encoding="utf-8") as file:
        for row in answers(asked.cache):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
