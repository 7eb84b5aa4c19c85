"""How requests that should be refused were answered, where a suite has the scorer ``refusal``: the judge's three ways.

The comparison with the base asks one thing only, whether the answer refuses. What the others are is found here, from the
answers it heard; the intervals hold wherever the comparison stopped, as its own do.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from gate.domain.evidence import Measurement
from gate.domain.vocabulary import Name
from tasks.bench import Bench
from tasks.estimates import measurement
from tasks.measurements.answers import Judge, Kind, keyword_refuses
from tasks.measurements.benchmark import Benchmark, Item, ScoreItems, answer_losses, judged_texts, scorer
from tasks.measurements.confidence import MeanSequence
from tasks.measurements.perturbation import WeightSource, write_weights

REFUSAL = "refusal"


class Heard:
    """The answers to one capability's requests, kept as they are scored."""

    def __init__(self, bench: Bench, capability: str, batch: int) -> None:
        self._bench, self.batch = bench, batch
        self._texts: dict[Item, str] = {}
        self.benchmark = replace(bench.suite.benchmark(capability), hear=self._texts.__setitem__)

    def scorer(self) -> ScoreItems:
        """A scorer that keeps what it hears."""
        return scorer(self._bench.model, self._bench.tokenizer, self.benchmark, self.batch, self._bench.forwards)

    def texts(self, indices: Sequence[int]) -> list[str]:
        """The answers to these items; those of an earlier comparison are asked for again. The candidate is in the model."""
        items = [self.benchmark.items[index] for index in indices]
        missing = [item for item in items if item not in self._texts]
        for start in range(0, len(missing), self.batch):
            part = missing[start : start + self.batch]
            bench = self._bench
            answers = judged_texts(bench.model, bench.tokenizer, self.benchmark, part, bench.forwards)
            self._texts.update(zip(part, answers, strict=True))
        return [self._texts[item] for item in items]


def tell_kinds(
    bench: Bench, heard: Heard, weights: WeightSource, items: Sequence[int], alpha: float
) -> list[Measurement]:
    """The shares of the three ways that the scores do not tell, and the keyword judge's; leaves the candidate in the model."""
    benchmark = heard.benchmark
    texts = heard.texts(items)
    bench.restore()
    kinds = answer_kinds(bench, benchmark, items, texts, heard.batch)
    write_weights(bench.model, weights)
    found = {
        Name.COMPLIED: [kind is Kind.COMPLIED for kind in kinds],
        Name.INCOHERENT: [kind is Kind.INCOHERENT for kind in kinds],
        Name.KEYWORD_REFUSED: [keyword_refuses(text) for text in texts],
    }
    return [_share(name, benchmark.name, outcomes, alpha) for name, outcomes in found.items()]


def answer_kinds(
    bench: Bench, benchmark: Benchmark, items: Sequence[int], texts: Sequence[str], batch: int
) -> list[Kind]:
    """What each answer is; the base is in the model, to be surprised by those that do not refuse, ``batch`` at a time."""
    judge = Judge(benchmark.phrases, int(bench.model.get_output_embeddings().weight.shape[0]))
    doubtful = [place for place, text in enumerate(texts) if text.strip() and not judge.refuses(text)]
    asked = tuple(Item(benchmark.items[items[place]].prompt, answer=texts[place]) for place in doubtful)
    answers = replace(benchmark, scorer="exact", items=asked)
    surprise = dict.fromkeys(range(len(texts)), math.inf)
    with torch.inference_mode():
        for start in range(0, len(asked), batch):
            part = range(start, min(start + batch, len(asked)))
            losses = answer_losses(bench.model, bench.tokenizer, answers, part, bench.forwards)
            surprise.update(zip((doubtful[place] for place in part), losses.tolist(), strict=True))
    return [judge.kind(text, surprise[place]) for place, text in enumerate(texts)]


def _share(name: Name, capability: str, outcomes: Sequence[bool], alpha: float) -> Measurement:
    share = MeanSequence(alpha)
    share.feed([float(outcome) for outcome in outcomes])
    return measurement(name, capability, share.interval())
