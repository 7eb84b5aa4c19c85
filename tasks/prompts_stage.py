"""The prompts whose answers changed, kept as text for whoever asks why: some of each capability, cut to length.

Which are kept follows from the comparison alone: those that fell before those that rose, each in the comparison's own
random order. Scores are those of the comparison; only the texts are made here. A hidden item's are never kept.
"""

import math
from collections.abc import Mapping, Sequence

from gate.domain.prompts import (
    ANSWER_CHARACTERS,
    CHOSEN,
    MOST_OPTIONS,
    OPTION_CHARACTERS,
    PROMPT_CHARACTERS,
    SHOWN,
    WRITTEN,
    CapabilityPrompts,
    ChangedPrompt,
    ChangedPrompts,
    Option,
    cut,
)
from tasks.measurements.benchmark import Benchmark, Item, choice_values, opening
from tasks.measurements.perturbation import write_weights
from tasks.measurements.rollouts import Question, greedy_texts
from tasks.measuring import Measuring

MOST_TOKENS = 96
"""Tokens of a written answer that are shown at most."""
Values = tuple[float, ...]


def keep_prompts(m: Measuring) -> None:
    """Keeps up to ``m.prompts_kept`` changed prompts of each compared capability; leaves the base in the model."""
    chosen = {name: _changed(m, name)[: m.prompts_kept] for name in m.retained if _can_be_shown(m, name)}
    if any(chosen.values()):
        m.tell("keeping the prompts that changed", 1.0)
        write_weights(m.bench.model, m.weights)
        after = {name: _answers(m, name, items) for name, items in chosen.items()}
        m.bench.restore()
        before = {name: _answers(m, name, items) for name, items in chosen.items()}
    else:
        before = after = {name: [] for name in chosen}
    found = tuple(_capability(m, name, items, before[name], after[name]) for name, items in chosen.items())
    m.prompts = ChangedPrompts(capabilities=found)


def _can_be_shown(m: Measuring, capability: str) -> bool:
    return m.bench.suite.benchmark(capability).scorer in SHOWN


def _scores(m: Measuring, capability: str) -> Mapping[int, tuple[float, float]]:
    """The base's and the candidate's score of each compared item, in the comparison's order."""
    retained, base = m.retained[capability], m.capabilities[capability].outcomes
    return {item: (base[item], own) for item, own in zip(retained.items, retained.outcomes, strict=True)}


def _changed(m: Measuring, capability: str) -> list[int]:
    shown = m.bench.suite.benchmark(capability).shown
    scores = {item: each for item, each in _scores(m, capability).items() if shown is None or item < shown}
    fell = [item for item, (base, own) in scores.items() if own < base]
    return fell + [item for item, (base, own) in scores.items() if own > base]


def _answers(m: Measuring, capability: str, items: Sequence[int]) -> list[tuple[str, Values]]:
    """What the model as it is answers to each: the text, and each choice's value where it chooses."""
    benchmark, batch = m.bench.suite.benchmark(capability), m.plan.batch_items
    asked = [items[start : start + batch] for start in range(0, len(items), batch)]
    answer = _chosen if benchmark.scorer == CHOSEN else _written
    return [each for part in asked for each in answer(m, benchmark, part)]


def _written(m: Measuring, benchmark: Benchmark, items: Sequence[int]) -> list[tuple[str, Values]]:
    tokenizer = m.bench.tokenizer
    # Others are read beyond their first line, however short the reference is.
    references = {i: benchmark.items[i].answer if benchmark.scorer in WRITTEN else None for i in items}
    questions = [Question(i, opening(tokenizer, benchmark, i), references[i]) for i in items]
    texts = greedy_texts(m.bench.model, tokenizer, questions, MOST_TOKENS, m.bench.forwards)
    return [(text, ()) for text in texts]


def _chosen(m: Measuring, benchmark: Benchmark, items: Sequence[int]) -> list[tuple[str, Values]]:
    of = [benchmark.items[i] for i in items]
    found = choice_values(m.bench.model, m.bench.tokenizer, benchmark, of, m.plan.batch_items, m.bench.forwards)
    return [(_likeliest(item, values), tuple(values)) for item, values in zip(of, found, strict=True)]


def _likeliest(item: Item, values: Sequence[float]) -> str:
    """The choice that is taken; none where a value is not finite."""
    if not all(math.isfinite(value) for value in values):
        return ""
    return item.choices[max(range(len(values)), key=lambda place: values[place])]


def _capability(
    m: Measuring,
    capability: str,
    items: Sequence[int],
    before: Sequence[tuple[str, Values]],
    after: Sequence[tuple[str, Values]],
) -> CapabilityPrompts:
    scores, benchmark = _scores(m, capability), m.bench.suite.benchmark(capability)
    shown = [
        _prompt(benchmark, item, scores[item], base, own) for item, base, own in zip(items, before, after, strict=True)
    ]
    return CapabilityPrompts(
        capability=capability,
        compared=len(scores),
        fell=sum(own < base for base, own in scores.values()),
        rose=sum(own > base for base, own in scores.values()),
        changed=tuple(shown),
    )


def _prompt(
    benchmark: Benchmark, index: int, scores: tuple[float, float], before: tuple[str, Values], after: tuple[str, Values]
) -> ChangedPrompt:
    item = benchmark.items[index]
    return ChangedPrompt(
        item=index,
        prompt=cut(item.prompt, PROMPT_CHARACTERS),
        expected=cut(item.reference, ANSWER_CHARACTERS),
        base=cut(before[0].strip(), ANSWER_CHARACTERS),
        candidate=cut(after[0].strip(), ANSWER_CHARACTERS),
        base_score=scores[0],
        candidate_score=scores[1],
        options=_options(item, before[1], after[1]),
    )


def _options(item: Item, before: Values, after: Values) -> tuple[Option, ...]:
    """The choices with what each model makes of them; nothing where the answer is written."""
    each = zip(item.choices, before, after, strict=True) if before else ()
    options = [Option(text=cut(t, OPTION_CHARACTERS), base=_finite(b), candidate=_finite(c)) for t, b, c in each]
    return tuple(options[:MOST_OPTIONS])


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
