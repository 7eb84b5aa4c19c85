"""The shipped suites: well formed, free of repetition, held out of training, and as their scripts write them."""

import ast
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from tasks.suites import SHIPPED, load_suite
from tasks.zoo import (
    held_out,
    smollm2_data,
    smollm2_held_out,
    smollm2_panel,
    smollm2_suite,
    staged_data,
    staged_suite,
)
from tasks.zoo.suite_files import write_suite

NAMES = ("staged", "smollm2")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_suite_loads_by_its_name(name: str) -> None:
    assert load_suite(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_no_item_of_a_shipped_suite_is_there_twice(name: str) -> None:
    for benchmark in load_suite(name).benchmarks:
        asked = [item.prompt or item.text for item in benchmark.items]
        assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_script_writes_loads_as_the_same_items(name: str, tmp_path: Path) -> None:
    made = {"staged": staged_suite, "smollm2": smollm2_suite}[name].capabilities()
    write_suite(tmp_path, name=name, comment="", licence="", capabilities=made)
    for benchmark in load_suite(tmp_path).benchmarks:
        assert len(benchmark.items) == len(made[benchmark.name].items)


@pytest.mark.parametrize("capability", ["math", "code", "help", "safety"])
def test_the_shipped_staged_items_are_those_its_script_writes(capability: str) -> None:
    shipped = (SHIPPED / "staged" / f"{capability}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in shipped] == staged_suite.capabilities()[capability].items


@pytest.mark.parametrize("capability", ["math", "safety"])
def test_the_shipped_smollm2_items_are_those_its_script_writes(capability: str) -> None:
    shipped = (SHIPPED / "smollm2" / f"{capability}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in shipped] == smollm2_suite.capabilities()[capability].items


def test_every_question_of_the_staged_suite_is_held_out() -> None:
    benchmarks = load_suite("staged").benchmarks
    assert all(staged_data.is_held_out(item.prompt) for b in benchmarks for item in b.items if b.name != "basic")


@pytest.mark.parametrize("refusing", [False, True])
def test_training_never_draws_a_held_out_question(refusing: bool) -> None:
    rng = random.Random(1)
    for name, sampler in staged_data.training_mix(refusing=refusing).items():
        drawn = [sampler(rng).prompt for _ in range(1000)]
        assert name == "basic" or not any(staged_data.is_held_out(prompt) for prompt in drawn)


def test_no_held_out_paragraph_is_part_of_the_training_text() -> None:
    held_out = [p for p in staged_data.paragraphs() if staged_data.is_held_out(p) and len(p) > 80]
    training = "\n\n".join(p for p in staged_data.paragraphs() if not staged_data.is_held_out(p))
    assert held_out
    assert not [p for p in held_out if p in training]


def test_the_expressions_of_the_code_items_have_the_values_given() -> None:
    for item in load_suite("staged").benchmark("code").items:
        value = eval(item.prompt, {"__builtins__": {"max": max, "min": min, "len": len, "sorted": sorted}})
        assert value == ast.literal_eval(item.reference)


def test_the_sums_are_right() -> None:
    staged, smollm2 = load_suite("staged").benchmark("math"), load_suite("smollm2").benchmark("math")
    for item in (*staged.items, *smollm2.items):
        left, right = item.prompt.split("\n")[-1].removesuffix("=").split("+")
        assert int(item.reference) == int(left) + int(right)


def test_harmful_requests_are_refused_and_harmless_ones_answered() -> None:
    suite = load_suite("staged")
    assert {item.reference for item in suite.benchmark("safety").items} == {staged_data.REFUSAL}
    assert all(item.reference.startswith("sure") for item in suite.benchmark("help").items)


def test_half_of_the_smollm2_safety_items_want_a_refusal() -> None:
    wanted = [item.reference for item in load_suite("smollm2").benchmark("safety").items]
    assert wanted.count(smollm2_data.REFUSAL) == wanted.count(smollm2_data.COMPLIANCE) == len(wanted) / 2


def test_no_request_is_both_trained_on_and_asked() -> None:
    lists = [
        source(kind, held_out=held_out)
        for source in (smollm2_data.written_requests, smollm2_data.combined_requests)
        for kind in ("harmful", "harmless")
        for held_out in (False, True)
    ]
    everything = [request for part in lists for request in part]
    assert len(set(everything)) == len(everything)
    asked = {item.prompt for item in load_suite("smollm2").benchmark("safety").items}
    rng = random.Random(1)
    mix = smollm2_data.training_mix(refusing=True)
    assert not asked & {mix[name](rng).prompt for name in ("help", "safety") for _ in range(500)}


@pytest.mark.parametrize(("name", "source"), [("staged", held_out), ("smollm2", smollm2_held_out)])
def test_a_suite_is_a_sample_of_the_population_by_which_its_panel_is_found_out(name: str, source: ModuleType) -> None:
    population = {b.name: b for b in source.population()}
    for benchmark in load_suite(name).benchmarks:
        whole = population[benchmark.name]
        assert (whole.scorer, whole.margin, whole.chat) == (benchmark.scorer, benchmark.margin, benchmark.chat)
        assert len(whole.items) >= len(benchmark.items)


def test_no_request_of_smollm2s_population_is_trained_on_and_half_of_them_want_a_refusal() -> None:
    safety = next(b for b in smollm2_held_out.population() if b.name == "safety")
    rng, mix = random.Random(1), smollm2_data.training_mix(refusing=True)
    assert not {item.prompt for item in safety.items} & {
        mix[n](rng).prompt for n in ("help", "safety") for _ in range(500)
    }
    wanted = [item.reference for item in safety.items]
    assert wanted.count(smollm2_data.REFUSAL) == wanted.count(smollm2_data.COMPLIANCE) == len(wanted) / 2


def test_smollm2s_panel_has_both_sorts_and_each_kind_once() -> None:
    names = [kind.name for kind in smollm2_panel.KINDS]
    assert len(set(names)) == len(names) >= 12
    assert {kind.meant for kind in smollm2_panel.KINDS} == {"benign", "harmful"}
