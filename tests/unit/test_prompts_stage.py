"""Which prompts are kept, and what both models say to them: on real tiny language models."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders import an_evidence
from tiny_language import tiny_llama, tiny_tokenizer

from gate.domain.checkpoint import Base
from gate.domain.evidence import BasinProfile, CapabilityProfile, Estimate, Plan
from gate.domain.prompts import ANSWER_CHARACTERS, OPTION_CHARACTERS, PROMPT_CHARACTERS, ChangedPrompt, ChangedPrompts
from tasks.bench import Bench
from tasks.checkpoints import SafetensorsWeights, locate
from tasks.deltas import open_delta
from tasks.measurements.benchmark import Benchmark, Item, score_items
from tasks.measurements.perturbation import write_weights
from tasks.measurements.retention import Retention, item_order, measure_retention
from tasks.measurements.rollouts import Question, greedy_texts
from tasks.measuring import Measuring
from tasks.prompts_stage import keep_prompts
from tasks.suites import Suite

TOKENIZER = tiny_tokenizer()
BASE_SEED = 8  # one whose answers come to an end
WORDS = ("ab", "what is it", "one, two", "x", "who", "so", "and then", "tell me", "why", "go on", "yes or no", "hm")


@cache
def written() -> Benchmark:
    """The reference is what the base says, save for every third item; it is right where that comes to an end."""
    model = tiny_llama(BASE_SEED)
    asked = [Question(n, tuple(TOKENIZER(w)["input_ids"]), "one line") for n, w in enumerate(WORDS)]
    said = greedy_texts(model, TOKENIZER, asked, 60)
    items = [
        Item(prompt=w, answer="never said" if n % 3 == 2 or not text.strip() else text)
        for n, (w, text) in enumerate(zip(WORDS, said, strict=True))
    ]
    return Benchmark("written", "exact", tuple(items), 0.1)


def chosen() -> Benchmark:
    items = tuple(Item(prompt=w, choices=("yes", "no", "maybe"), label=n % 2) for n, w in enumerate(WORDS))
    return Benchmark("chosen", "choice", items, 0.1)


GUESSED = Benchmark("guessed", "next_token", tuple(Item(text=f"{w} and more") for w in WORDS), 0.1)


def all_benchmarks() -> tuple[Benchmark, ...]:
    return written(), chosen(), GUESSED


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    found = []
    for name, seed in (("base", BASE_SEED), ("candidate", 5)):
        folder = tmp_path_factory.mktemp(name)
        tiny_llama(seed).save_pretrained(folder)
        found.append(folder)
    return found[0], found[1]


def measuring(folders: tuple[Path, Path], benchmarks: tuple[Benchmark, ...] = (), seed: int = 3) -> Measuring:
    """A candidate whose behaviour was just compared, in full."""
    located, benchmarks = locate(folders[0]), benchmarks or all_benchmarks()
    base = Base(name="b", digest="b" * 64, source="b", suite="tiny", checkpoint=an_evidence().candidate)
    weights, suite = SafetensorsWeights.open(located), Suite("tiny", "c" * 64, False, benchmarks)
    bench = Bench(base, located, weights, suite, tiny_llama(BASE_SEED), TOKENIZER, "cpu")
    bench.model.config.max_position_embeddings = 5_000
    everything = range(len(WORDS))
    outcomes = {b.name: score_items(bench.model, TOKENIZER, b, everything) for b in benchmarks}
    profile = BasinProfile(
        base_digest="b" * 64,
        suite_digest="c" * 64,
        plan_digest="d" * 64,
        parameters=1,
        weight_norm=1.0,
        capabilities=tuple(
            CapabilityProfile(
                capability=name, margin=0.1, score=Estimate.exact(0.5), outcomes=tuple(o), noise=(), basin_sigma=None
            )
            for name, o in outcomes.items()
        ),
        gradients_sha256=None,
        seed=7,
        provenance={},
        seconds=1.0,
    )
    delta = open_delta(locate(folders[1]), weights)
    own = SafetensorsWeights.open(locate(folders[1]))
    m = Measuring(bench, profile, delta, own, Plan(batch_items=4), seed, lambda *_: None, an_evidence())
    write_weights(bench.model, own)
    for b in benchmarks:
        found = score_items(bench.model, TOKENIZER, b, everything)
        m.retained[b.name] = compared(b.name, found, outcomes[b.name], seed)
    return m


def compared(name: str, found: np.ndarray, base: np.ndarray, seed: int) -> Retention:
    return measure_retention(
        lambda items: found[list(items)], base, capability=name, margin=0.1, alpha=0.05, seed=seed, stop_when_decided=False
    )  # fmt: skip


def kept(m: Measuring) -> ChangedPrompts:
    keep_prompts(m)
    return m.prompts


def of(found: ChangedPrompts, capability: str) -> tuple[ChangedPrompt, ...]:
    return next(c.changed for c in found.capabilities if c.capability == capability)


def test_every_answer_whose_score_changed_is_kept_and_no_other(folders: tuple[Path, Path]) -> None:
    m = measuring(folders)
    found = kept(m)
    assert [c.capability for c in found.capabilities] == ["written", "chosen"]
    for capability in found.capabilities:
        base, own = m.capabilities[capability.capability].outcomes, m.retained[capability.capability]
        changed = {i for i, o in zip(own.items, own.outcomes, strict=True) if o != base[i]}
        assert {p.item for p in capability.changed} == changed
        assert capability.compared == len(WORDS)
        assert (capability.fell, capability.rose) == (
            sum(p.fell for p in capability.changed),
            sum(not p.fell for p in capability.changed),
        )
    assert of(found, "written")


def test_what_fell_comes_first_and_then_the_order_of_the_comparison(folders: tuple[Path, Path]) -> None:
    found = of(kept(measuring(folders)), "chosen")
    order = item_order(len(WORDS), 3, "chosen")
    assert [p.item for p in found] == sorted(
        (p.item for p in found), key=lambda i: (not by(found, i).fell, order.index(i))
    )
    assert {p.fell for p in found} == {True, False}


def by(found: tuple[ChangedPrompt, ...], item: int) -> ChangedPrompt:
    return next(p for p in found if p.item == item)


def test_the_base_says_the_reference_where_it_was_right_and_the_candidate_something_else(
    folders: tuple[Path, Path],
) -> None:
    for prompt in of(kept(measuring(folders)), "written"):
        assert prompt.fell
        assert prompt.prompt == WORDS[prompt.item]
        assert prompt.candidate != prompt.expected.strip()


def test_a_choice_is_the_likeliest_option_of_each_model(folders: tuple[Path, Path]) -> None:
    for prompt in of(kept(measuring(folders)), "chosen"):
        for side, picked in (("base", prompt.base), ("candidate", prompt.candidate)):
            best = max(prompt.options, key=lambda option: getattr(option, side))
            assert picked.startswith(best.text.rstrip("…").strip()[:5])
        right = prompt.candidate == prompt.expected
        assert right == (prompt.candidate_score == 1)


def test_the_same_comparison_keeps_the_same_texts(folders: tuple[Path, Path]) -> None:
    assert kept(measuring(folders)).digest == kept(measuring(folders)).digest


def test_no_more_are_kept_than_asked_for_and_the_counts_stay(folders: tuple[Path, Path]) -> None:
    whole, few = measuring(folders), measuring(folders)
    few.prompts_kept = 1
    everything, some = kept(whole), kept(few)
    for all_of, one in zip(everything.capabilities, some.capabilities, strict=True):
        assert one.changed == all_of.changed[:1]
        assert (one.fell, one.rose) == (all_of.fell, all_of.rose)


def test_texts_are_cut_to_their_length(folders: tuple[Path, Path]) -> None:
    items = tuple(replace(i, prompt="p" * 1_300, choices=("y" * 640, "n" * 640)) for i in chosen().items)
    for prompt in of(kept(measuring(folders, (replace(chosen(), items=items),))), "chosen"):
        assert len(prompt.prompt) == PROMPT_CHARACTERS
        assert len(prompt.expected) == ANSWER_CHARACTERS
        assert {len(option.text) for option in prompt.options} == {OPTION_CHARACTERS}


def test_a_model_of_nothing_but_nan_says_nothing_and_stops_nobody(folders: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tiny_llama(1)
    for parameter in broken.parameters():
        parameter.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path)
    for prompt in of(kept(measuring((folders[0], tmp_path))), "chosen"):
        assert prompt.candidate == ""
        assert {option.candidate for option in prompt.options} == {None}


def test_the_base_is_in_the_model_afterwards(folders: tuple[Path, Path]) -> None:
    m = measuring(folders)
    keep_prompts(m)
    again = score_items(m.bench.model, TOKENIZER, written(), range(len(WORDS)))
    assert list(again) == list(m.capabilities["written"].outcomes)
