"""Evaluations and verdicts as lines of a terminal. What others wrote is made inert and never read as markup."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from gate.domain.prompts import ChangedPrompt, ChangedPrompts
from gate.domain.verdict import Finding, Outcome, Result, Verdict
from gate.domain.vocabulary import Name
from gate.look.comparing import Change, Comparison
from gate.pages.inert import inert
from gate.pages.numbers import ABSENT, interval
from gate.pages.prompts import WARNING, judged, told
from gate.pages.rules import CONSEQUENCES, WORDS, is_idle, limit_of
from gate.pages.wording import MARKS, NEXT, TITLES

COLOURS = {"approved": "green", "blocked": "red", "needs_review": "yellow", "error": "magenta"}
RESULT_COLOURS = {
    Result.PASS: "green",
    Result.FAIL: "red",
    Result.INCONCLUSIVE: "yellow",
    Result.MISSING: "yellow",
    Result.WAIVED: "magenta",
}


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Evaluations as a table for people."""
    made = Table("version", "state", "progress", "verdict", "why", box=None, pad_edge=False, header_style="dim")
    made.columns[4].overflow = "fold"
    for row in rows:
        outcome = row["outcome"]
        word = f"{MARKS[outcome]} {outcome.replace('_', ' ')}" if outcome else ""
        made.add_row(
            Text(inert(f"{row['name']}/{row['version']}", 60)),
            Text(row["state"]),
            Text("" if outcome else f"{100 * row['progress']:.0f} %"),
            Text(word, COLOURS.get(outcome or "", "")),
            Text(inert(row["reason"] or row["stage"] or "", 160)),
        )
    return made


def lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Evaluations as tab-separated lines: version, state, outcome, stage, progress from 0 to 1, reason."""
    for row in rows:
        cells = (
            f"{row['name']}/{row['version']}",
            row["state"],
            row["outcome"] or "",
            row["stage"],
            f"{row['progress']:.2f}",
        )
        yield "\t".join(inert(cell, 2000) for cell in (*cells, row["reason"] or ""))


def verdict_lines(document: Mapping[str, Any], gate: str) -> Iterator[Text]:
    """A verdict: outcome and reason first, then what did not pass, then where to read on."""
    verdict = Verdict.model_validate(document["verdict"])
    row = document["evaluation"]
    yield _headline(verdict.outcome, f"{row['name']} version {row['version']}")
    yield Text(inert(verdict.reason, 2000))
    yield Text(NEXT[verdict.outcome], "dim")
    if row.get("opened_again"):
        yield Text(f"Evaluated again because {inert(row['opened_again'], 600)}.", "dim")
    for error in verdict.errors:
        yield Text(f"  ! {inert(error, 600)}", "magenta")
    for found in verdict.defects:
        yield Text(f"  ✕ {found.defect.code}: {inert(found.defect.message, 600)} ({found.enforcement})", "red")
    looked_at = [finding for finding in verdict.findings if not is_idle(finding)]
    for finding in looked_at:
        if finding.result is not Result.PASS:
            yield _finding(finding)
    passed = sum(f.result is Result.PASS for f in looked_at)
    yield Text(f"  ✓ {passed} of {len(looked_at)} checks pass", "green")
    yield from _idle(f.rule for f in verdict.findings if is_idle(f))
    yield Text(f"report  {gate}/evaluations/{row['key']}/report", "dim")


def prompt_lines(document: Mapping[str, Any]) -> Iterator[Text]:
    """Prompts whose answers changed, with both answers and what the judge made of them."""
    found = ChangedPrompts.model_validate(document)
    if not found.capabilities:
        yield Text("No prompts were kept: nothing was compared, or they are not to be shown.", "dim")
        return
    yield Text(WARNING, "yellow")
    for each in found.capabilities:
        yield Text(f"{inert(each.capability, 60)}: {told(each)}", "bold")
        for prompt in each.changed:
            yield from _prompt(prompt)


def _prompt(found: ChangedPrompt) -> Iterator[Text]:
    yield Text(f"  prompt     {inert(found.prompt, 2000)}")
    yield Text(f"  expected   {inert(found.expected, 1000)}", "dim")
    for who, said, score in (
        ("base", found.base, found.base_score),
        ("candidate", found.candidate, found.candidate_score),
    ):
        colour = "green" if score >= 1 else "red"
        yield Text(f"  {who:9}  ").append(f"{judged(score)}: ", colour).append(inert(said, 1000))
    for option in found.options:
        yield Text(f"    choice   base {option.base}, candidate {option.candidate}: {inert(option.text, 300)}", "dim")
    yield Text("")


def changes(comparison: Comparison, one: str, other: str) -> Iterator[Text]:
    """Two verdicts compared: outcomes, cautions, then every rule, those that turned first."""
    yield _headline(comparison.one.outcome, f"version {inert(one, 20)}")
    yield _headline(comparison.other.outcome, f"version {inert(other, 20)}")
    for caution in comparison.cautions:
        yield Text(f"note: {caution}", "yellow")
    shown = [change for change in comparison.changes if not _is_idle(change)]
    yield Text(f"{sum(change.turned for change in shown)} of {len(shown)} checks came out otherwise")
    for change in shown:
        yield _change(change)
    yield from _idle(change.rule for change in comparison.changes if _is_idle(change))


def _is_idle(change: Change) -> bool:
    """Advice that had no number on one side: there is nothing to compare."""
    return any(finding is not None and is_idle(finding) for finding in (change.one, change.other))


def _idle(rules: Iterable[str]) -> Iterator[Text]:
    named = ", ".join(dict.fromkeys(inert(rule, 80) for rule in rules))
    if named:
        yield Text(f"  – advice that had no number to go by: {named}", "dim")


def _headline(outcome: Outcome, subject: str) -> Text:
    return Text(f"{MARKS[outcome]} {TITLES[outcome]}: {inert(subject, 200)}", f"bold {COLOURS[outcome]}")


def _finding(finding: Finding) -> Text:
    word = f"{WORDS[finding.result]}, {CONSEQUENCES[finding.enforcement]}"
    text = Text(f"  ✕ {inert(finding.rule, 80)} ({word}): ", RESULT_COLOURS[finding.result])
    return text.append(inert(finding.sentence, 600), "default")


def _change(change: Change) -> Text:
    about = inert(f"{change.rule} {change.capability or ''}", 80).strip()
    known = [finding for finding in (change.one, change.other) if finding is not None]
    text = Text(f"{'→' if change.turned else ' '} {about}  ", "bold" if change.turned else "")
    _side(text, change.one)
    text.append("  →  ")
    _side(text, change.other)
    return text.append(f"  ({limit_of(known[-1])})", "dim")


def _side(text: Text, finding: Finding | None) -> None:
    if finding is None:
        text.append("not asked", "dim")
    else:
        number = (
            interval(finding.estimate, sign=finding.measurement is Name.RETENTION, least=2)
            if finding.estimate
            else ABSENT
        )
        text.append(f"{WORDS[finding.result]} {number}", RESULT_COLOURS[finding.result])
