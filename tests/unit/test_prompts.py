"""Changed prompts as documents, pages, tables and lines: bounded, bound to their evidence, inert."""

import json
import re
from html.parser import HTMLParser

import pytest
from builders import a_prompt, a_verdict, an_evidence, some_prompts

from gate.domain.attestation import measurement_statement
from gate.domain.evidence import Evidence, digest_json
from gate.domain.prompts import CapabilityPrompts, ChangedPrompts, Option, cut, fitting
from gate.look.shown import prompt_lines
from gate.pages.html_report import html
from gate.pages.prompts import TABLE_COLUMNS, WARNING, groups, table
from gate.pages.report import markdown

HOSTILE = (
    "</blockquote></details><script>alert(1)</script>\x1b]0;taken\x07\x1b[31m\u202e\u2066\x00\r\n    <b>`|"
    + "A" * 1_000_000
)
CONTROLS = {"\x1b", "\u202e", "\u2066", "\x00", "\x07", "\r"}


HOSTILE_PROMPTS = some_prompts(
    a_prompt(
        prompt=HOSTILE,
        expected=HOSTILE,
        base=HOSTILE,
        candidate=HOSTILE,
        options=(Option(text=HOSTILE, base=-1.0, candidate=None),),
    ),
    capability="x" + HOSTILE,
)


def test_evidence_older_than_prompts_loads_and_keeps_its_digest() -> None:
    evidence = an_evidence()
    old = json.loads(evidence.model_dump_json())
    assert "prompts_sha256" not in old
    loaded = Evidence.model_validate(old)
    assert loaded.prompts_sha256 is None
    assert loaded.digest == evidence.digest == digest_json(old)


def test_a_signed_statement_holds_the_digest_of_the_texts_and_none_of_them() -> None:
    prompts = some_prompts(a_prompt())
    evidence = an_evidence(prompts_sha256=prompts.digest)
    statement = measurement_statement(evidence, a_verdict(evidence))
    assert statement["predicate"]["evidence"]["prompts_sha256"] == prompts.digest
    assert "Like this." not in json.dumps(statement)
    assert evidence.digest != an_evidence().digest


def test_only_the_texts_whose_digest_the_evidence_holds_are_its_own() -> None:
    prompts = some_prompts(a_prompt())
    evidence = an_evidence(prompts_sha256=prompts.digest)
    assert fitting(evidence, prompts) == prompts
    for other in (None, some_prompts(a_prompt(candidate="Changed since.")), ChangedPrompts()):
        assert fitting(evidence, other) == ChangedPrompts()
    assert fitting(an_evidence(), prompts) == ChangedPrompts()


def test_a_text_is_cut_to_its_length_and_says_so() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert len(cut("\U0001f600" * 50, 10)) == 10


def test_the_report_folds_what_may_be_harmful_behind_a_warning() -> None:
    page = html(a_verdict(), an_evidence(), "x", some_prompts(a_prompt()))
    at = {word: page.index(word) for word in (WARNING, "<details", "How do I do harm?", "Like this.", "</details>")}
    assert list(at.values()) == sorted(at.values())
    assert "<details open" not in page
    assert "1 of 64 compared answers became worse" in page


def test_the_capability_that_lost_most_comes_first_and_an_unchanged_one_is_told_unfolded() -> None:
    kept = CapabilityPrompts(capability="math", compared=64, fell=0, rose=0)
    lost = some_prompts(a_prompt(), fell=30).capabilities[0]
    found = groups(ChangedPrompts(capabilities=(kept, lost)))
    assert [(g.capability, len(g.shown)) for g in found] == [("safety", 1), ("math", 0)]
    page = html(a_verdict(), an_evidence(), "x", ChangedPrompts(capabilities=(kept, lost)))
    assert page.count("<details") == 1
    assert "none of 64 compared answers changed" in page


def test_without_prompts_the_reports_are_as_they_were() -> None:
    assert "Prompts that changed" not in html(a_verdict(), an_evidence(), "x")
    assert "Prompts that changed" not in markdown(a_verdict(), an_evidence(), "x")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in {"meta", "br", "col"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_hostile_prompt_or_answer_is_inert_in_the_report() -> None:
    page = html(a_verdict(), an_evidence(), "x", HOSTILE_PROMPTS)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {"script", "b", "img"} & set(tags.seen)
    assert not CONTROLS & set(page)
    assert len(page) < 200_000


def test_a_hostile_prompt_or_answer_is_inert_in_markdown() -> None:
    page = markdown(a_verdict(), an_evidence(), "x", prompts=HOSTILE_PROMPTS)
    assert not CONTROLS & set(page)
    # Outside of what is indented, and so quoted as it is, nothing of it is left as HTML.
    read = "\n".join(line for line in page.splitlines() if not line.startswith("    "))
    assert set(re.findall(r"<(/?\w+)", read)) <= {"details", "/details", "summary", "/summary"}
    assert read.count("</details>") == 1
    assert len(page) < 60_000


def test_a_hostile_prompt_or_answer_is_inert_in_the_terminal() -> None:
    lines = [line.plain for line in prompt_lines(HOSTILE_PROMPTS.model_dump(mode="json"))]
    assert not CONTROLS & set("".join(lines))
    assert all("\n" not in line and len(line) < 3000 for line in lines)


def test_a_hostile_prompt_or_answer_is_inert_in_mlflows_table() -> None:
    found = table(HOSTILE_PROMPTS)
    text = json.dumps(found, ensure_ascii=False)
    assert not CONTROLS & set(text)
    assert len(text) < 30_000


def test_the_table_has_a_row_for_each_prompt_and_a_cell_for_each_column() -> None:
    found = table(some_prompts(a_prompt(), a_prompt(item=5)))
    assert found["columns"] == list(TABLE_COLUMNS)
    assert [len(row) for row in found["data"]] == [len(TABLE_COLUMNS)] * 2
    assert dict(zip(found["columns"], found["data"][0], strict=True))["candidate answer"] == "Like this."


@pytest.mark.parametrize("document", [{"capabilities": []}])
def test_the_command_line_says_so_where_none_were_kept(document: dict[str, object]) -> None:
    assert "No prompts were kept" in next(iter(prompt_lines(document))).plain
