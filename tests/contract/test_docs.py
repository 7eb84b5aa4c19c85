"""What the documentation says can be done: its links, settings, commands, policies and suites are real."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from gate.adapters.policy_files import load_policy
from gate.cli import app
from gate.settings import Settings
from tasks import rotation
from tasks.cli import register
from tasks.suites import load_suite

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<words>[^\n`]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")

ITEMS = {
    "exact": {"prompt": "a", "answer": "b"},
    "choice": {"prompt": "a", "choices": ["b", "c"], "label": 0},
    "cloze": {"prompt": "a", "answer": "b"},
    "number": {"prompt": "a", "answer": "b is 2."},
    "refusal": {"prompt": "a", "answer": "I can't help with that."},
    "next_token": {"text": "abc"},
    "code": {"prompt": "a = 1", "answer": "\nb = 2", "tests": "assert b == 2"},
}


def fences(kind: str) -> Iterator[tuple[str, str, str]]:
    """(page, further words, text) of each code block of that kind."""
    for page in PAGES:
        for found in FENCE.finditer(page.read_text()):
            first, _, rest = found["words"].partition(" ")
            if first == kind:
                yield str(page.relative_to(ROOT)), rest, found["text"]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links() -> Iterator[Any]:
    for page in PAGES:
        for found in LINK.finditer(prose(page)):
            target = found["target"]
            if not target.startswith(("http://", "https://", "mailto:")):
                yield pytest.param(page, target, id=f"{page.relative_to(ROOT)}:{target}")


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_to_a_page_and_a_heading_that_exist(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page

    assert there.exists()
    assert there.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(there)


def test_every_page_under_docs_can_be_reached_from_its_index() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = (found["target"].partition("#")[0] for found in LINK.finditer(prose(page)))
        waiting += [(page.parent / t).resolve() for t in targets if t and "://" not in t]

    assert set((ROOT / "docs").rglob("*.md")) <= seen


def test_every_setting_named_in_the_documentation_exists() -> None:
    known = {f"GATE_{name.upper()}" for name in Settings.model_fields}
    named = {(name, page.name) for page in PAGES for name in re.findall(r"\bGATE_[A-Z_]+[A-Z]", page.read_text())}

    assert {(name, page) for name, page in named if name not in known} == set()
    assert named


def command_lines() -> Iterator[Any]:
    """Each ``basin-gate …`` line of a console or YAML block, and each in the prose that has arguments."""
    for kind in ("console", "yaml", "text"):
        for page, _, text in fences(kind):
            for line in re.findall(r"^(?:\$ |- run: )([^\n]*)$", text, re.MULTILINE):
                for part in re.split(r" &&? ?", line):
                    if part.startswith("basin-gate "):
                        yield pytest.param(part, id=f"{page}:{part}")
    for page in PAGES:
        for line in re.findall(r"`(basin-gate [^`\n]+)`", prose(page)):
            yield pytest.param(line, id=f"{page.relative_to(ROOT)}:{line}")


@pytest.fixture(scope="module")
def command_line() -> TyperGroup:
    register(app)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


@pytest.mark.parametrize("line", list(command_lines()))
def test_a_command_in_the_documentation_parses(
    command_line: TyperGroup, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(re.split(r" +[>|#] ", line)[0])[1:]
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.startswith(("models/", "out/", "DIR")):
            (tmp_path / word).mkdir(parents=True, exist_ok=True)

    command: Any = command_line
    while isinstance(command, TyperGroup) and words:
        assert words[0] in command.commands, f"{line}: no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    if words:
        command.make_context("basin-gate", words)


def policies() -> Iterator[Any]:
    for page, words, text in fences("yaml"):
        if words == "policy" or re.search(r"^rules:", text, re.MULTILINE):
            yield pytest.param(page, text, id=page)


@pytest.mark.parametrize(("page", "text"), list(policies()))
def test_a_policy_in_the_documentation_loads(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    # The layer above it stands on the same page.
    for n, (where, _, above) in enumerate(fences("yaml")):
        if where == page and above.startswith("name: ") and "\nlayer: organisation\n" in above and above != text:
            (tmp_path / f"above-{n}.yaml").write_text(above)

    assert load_policy(tmp_path / "policy.yaml").rules


def suites() -> Iterator[Any]:
    for page, words, text in fences("yaml"):
        if words == "suite" or re.search(r"^capabilities:", text, re.MULTILINE):
            yield pytest.param(text, id=page)


@pytest.mark.parametrize("text", list(suites()))
def test_a_suite_in_the_documentation_loads(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    for capability in yaml.safe_load(text)["capabilities"]:
        line = json.dumps(ITEMS[capability["scorer"]]) + "\n"
        (tmp_path / capability["items"]).write_text(line)
        if "hidden" in capability:
            (tmp_path / capability["hidden"]).write_text(line * (capability["hidden_items"] + 1))
    (tmp_path / "secret").write_text("0123456789abcdef" * 2)
    monkeypatch.setattr(rotation, "settings", lambda: Settings(hidden_items_secret_file=tmp_path / "secret"))

    assert load_suite(tmp_path).benchmarks


def items() -> Iterator[Any]:
    for page, words, text in fences("json"):
        if words.startswith("item "):
            yield pytest.param(words.removeprefix("item "), text, id=f"{page}:{words}")


@pytest.mark.parametrize(("scorer", "line"), list(items()))
def test_an_item_in_the_documentation_loads(scorer: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(line)
    (tmp_path / "suite.yaml").write_text(
        f"name: s\ncapabilities:\n  - {{name: c, scorer: {scorer}, items: items.jsonl, margin: 0.1}}\n"
    )

    assert len(load_suite(tmp_path).benchmark("c").items) == 1


def test_there_is_a_policy_a_suite_and_an_item_of_each_scorer_to_check() -> None:
    assert list(policies())
    assert list(suites())
    assert len(list(items())) == len(ITEMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for found in FENCE.finditer(page.read_text()):
        if found["words"] == "python":
            compile(found["text"], str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page: Path) -> None:
    columns = 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        bars = len(re.findall(r"(?<!\\)\|", re.sub(r"``.*?``", "", line))) if line.lstrip().startswith("|") else 0
        assert not (columns and bars and bars != columns), f"line {number}"
        columns = bars
