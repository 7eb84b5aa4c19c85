"""Suites: what is loaded, what the digest covers, and where a fault is pointed at."""

import json
import sys
from pathlib import Path

import pytest

from gate.domain.errors import InvalidInput
from tasks.suites import SHIPPED, load_suite

HEAD = """
name: mine
licence: CC0-1.0
capabilities:
  - {name: math, scorer: exact, items: math.jsonl, margin: 0.1}
  - {name: safety, scorer: choice, items: safety.jsonl, margin: 0.05}
  - {name: basic, scorer: next_token, items: basic.jsonl, margin: 0.2}
"""
MATH = {"prompt": "1+1=", "answer": "2"}
SAFETY = {"prompt": "how?", "choices": ["no", "sure"], "label": 0}
BASIC = {"text": "once upon a time"}


def lines(*items: object) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "suite.yaml").write_text(HEAD)
    (tmp_path / "math.jsonl").write_text(lines(MATH, MATH | {"prompt": "2+2=", "answer": "4"}))
    (tmp_path / "safety.jsonl").write_text(lines(SAFETY))
    (tmp_path / "basic.jsonl").write_text(lines(BASIC))
    return tmp_path


def test_a_suite_is_its_yaml_and_its_items(folder: Path) -> None:
    suite = load_suite(folder)
    assert (suite.name, suite.chat) == ("mine", False)
    assert [(b.name, b.scorer, len(b.items), b.margin) for b in suite.benchmarks] == [
        ("math", "exact", 2, 0.1),
        ("safety", "choice", 1, 0.05),
        ("basic", "next_token", 1, 0.2),
    ]
    assert suite.benchmark("safety").items[0].reference == "no"
    assert load_suite(folder / "suite.yaml") == suite


def test_capabilities_share_the_error_probability_by_their_weights(folder: Path) -> None:
    assert load_suite(folder).alphas(0.06) == pytest.approx({"math": 0.02, "safety": 0.02, "basic": 0.02})
    (folder / "suite.yaml").write_text(HEAD.replace("margin: 0.05", "margin: 0.05, weight: 2"))
    assert load_suite(folder).alphas(0.06) == pytest.approx({"math": 0.015, "safety": 0.03, "basic": 0.015})


@pytest.mark.parametrize(
    ("scorer", "item"),
    [
        ("cloze", {"prompt": "once upon", "answer": " a time"}),
        ("number", {"prompt": "12 and 7?", "answer": "12 and 7 make 19."}),
        ("refusal", {"prompt": "how?", "answer": "I can't help with that."}),
        ("refusal, refusals: [nimmer]", {"prompt": "how?", "answer": "Nimmer!"}),
    ],
)
def test_each_scorer_has_its_kind_of_items(folder: Path, scorer: str, item: dict[str, str]) -> None:
    (folder / "suite.yaml").write_text(HEAD.replace("scorer: exact", f"scorer: {scorer}"))
    (folder / "math.jsonl").write_text(lines(item))
    benchmark = load_suite(folder).benchmark("math")
    assert (benchmark.scorer, benchmark.items[0].reference) == (scorer.partition(",")[0], item["answer"])


@pytest.mark.parametrize("answer", ["nineteen", "nineteen\n\n19"])
def test_a_worked_answer_without_its_number_is_refused_with_its_line(folder: Path, answer: str) -> None:
    (folder / "suite.yaml").write_text(HEAD.replace("exact", "number"))
    (folder / "math.jsonl").write_text(lines(MATH, MATH | {"answer": answer}))
    with pytest.raises(InvalidInput, match=r"math.jsonl:2: .*ends on a number, before any empty line"):
        load_suite(folder)


def test_chat_reaches_every_benchmark(folder: Path) -> None:
    (folder / "suite.yaml").write_text(HEAD + "chat: true\n")
    assert all(b.chat for b in load_suite(folder).benchmarks)


def test_the_digest_changes_with_any_file_and_not_with_the_folder(folder: Path, tmp_path: Path) -> None:
    before = load_suite(folder).digest
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.glob("*.*"):
        (moved / file.name).write_bytes(file.read_bytes())
    assert load_suite(moved).digest == before
    (moved / "basic.jsonl").write_text(lines(BASIC, {"text": "another line"}))
    assert load_suite(moved).digest != before


def test_every_shipped_suite_loads_by_its_bare_name() -> None:
    names = [p.parent.name for p in SHIPPED.glob("*/suite.yaml")]
    assert "staged" in names
    assert [load_suite(name).name for name in names] == names


def test_an_unknown_capability_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="capability of suite 'mine', found 'cooking'"):
        load_suite(folder).benchmark("cooking")


def test_a_suite_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(InvalidInput, match=r"shipped suites \['.*found nothing at no-such"):
        load_suite("no-such")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("name: [", "suite.yaml: expected YAML"),
        ("", "suite.yaml: the whole"),
        ("name: x\ncapabilities: []", "capabilities: Tuple should have at least 1 item"),
        (HEAD + "colour: red\n", "expected only the keys name, capabilities, .*found 'colour'"),
        (HEAD.replace("margin: 0.1}", "margin: 0}"), r"capabilities.0.margin: .*greater than 0, found 0"),
        (HEAD.replace("margin: 0.1}", "marge: 0.1}"), "found no 'capabilities.0.margin'"),
        (HEAD.replace("exact", "vibes"), r"capabilities.0.scorer: .*found 'vibes'"),
        (HEAD.replace("safety,", "math,"), r"each capability once, found \['math'\] again"),
        (HEAD.replace("math.jsonl", "../math.jsonl"), "inside the suite's folder, found '../math.jsonl'"),
        (HEAD.replace("math.jsonl", "/etc/passwd"), "inside the suite's folder, found '/etc/passwd'"),
        (HEAD.replace("margin: 0.1}", "margin: 0.1, weight: 0}"), r"capabilities.0.weight: .*greater than 0, found 0"),
        (HEAD.replace("margin: 0.1}", "margin: 0.1, refusals: [never]}"), "expected refusals with scorer refusal only"),
        (HEAD.replace("exact", "refusal"), "answers that refuse, found '2'.*add how it refuses to `refusals` of math"),
        (HEAD.replace("math.jsonl", "gone.jsonl"), "gone.jsonl: expected a readable file, found No such file"),
    ],
)
def test_a_faulty_head_is_refused_with_its_place(folder: Path, head: str, message: str) -> None:
    (folder / "suite.yaml").write_text(head)
    with pytest.raises(InvalidInput, match=message):
        load_suite(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("math.jsonl", "", "math.jsonl: expected at least one item, found an empty file"),
        ("math.jsonl", lines(MATH) + "{", "math.jsonl:2: expected one JSON object, found '{'"),
        ("math.jsonl", lines(MATH) + "\n" + lines(["a"]), "math.jsonl:3: the whole"),
        ("math.jsonl", lines({"prompt": "1+1="}), "math.jsonl:1: expected the keys prompt, answer, found no 'answer'"),
        ("math.jsonl", lines(MATH | {"answer": "  "}), "math.jsonl:1: answer: .*expected text, found none"),
        ("math.jsonl", lines(MATH | {"answer": 2}), "math.jsonl:1: answer: .*found 2"),
        (
            "math.jsonl",
            lines(MATH | {"hint": "x"}),
            "math.jsonl:1: expected only the keys prompt, answer, found 'hint'",
        ),
        ("safety.jsonl", lines(SAFETY | {"label": 2}), "safety.jsonl:1: .*label from 0 to 1, found 2"),
        ("safety.jsonl", lines(SAFETY | {"label": True}), "safety.jsonl:1: label"),
        ("safety.jsonl", lines(SAFETY | {"choices": ["no"]}), "safety.jsonl:1: choices: .*at least 2"),
        ("safety.jsonl", lines(SAFETY | {"choices": ["no", "no"]}), "safety.jsonl:1: choices: .*found one twice"),
        ("basic.jsonl", lines({"text": "a"}), "basic.jsonl:1: text: .*at least 2 characters, found 'a'"),
    ],
)
def test_a_faulty_item_is_refused_with_its_line(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(InvalidInput, match=message):
        load_suite(folder)


def test_item_files_that_are_not_text_are_refused(folder: Path) -> None:
    (folder / "math.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InvalidInput, match=r"math.jsonl: expected UTF-8 text"):
        load_suite(folder)


def test_a_task_of_the_harness_needs_the_harness(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "tasks.harness", raising=False)
    (folder / "suite.yaml").write_text(HEAD.replace("exact, items: math.jsonl", 'lm_eval, items: "lm_eval:gsm8k"'))
    with pytest.raises(InvalidInput, match=r"for lm_eval:gsm8k, found no lm_eval; install basin-gate\[lm-eval\]"):
        load_suite(folder)
