"""A policy's draft tried on what was judged before, in words: what is wrong with it, or whom it would decide otherwise."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gate.domain.rehearsal import Flip, Replay
from gate.pages.fleet import OUTCOMES
from gate.pages.numbers import percent
from gate.pages.wording import MARKS

LONGEST = 2000
"""Of a message; it may hold words of the draft, and taking it apart must not take long."""
_PLACED = re.compile(r"draft\.yaml(?::(\d+))?: (.*)", re.DOTALL)
_PARTS = re.compile(r"(?:(.*?)[:;] )?expected (.+?),? found:? (.+?)(?:; (.+))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a draft. ``line`` is 0 where it is none in particular, ``written`` what stands there;
    a message that is not in parts is whole in ``told``, and the others are empty."""

    line: int
    written: str
    told: str
    expected: str = ""
    found: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class FlipLine:
    """One version that would be decided otherwise."""

    version: str
    evaluation: str
    before: tuple[str, str, str]
    after: tuple[str, str, str]
    rules: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many versions had an outcome, and how many would have it."""

    word: str
    before: int
    after: int


def problem(message: str, draft: str) -> Problem:
    """A message of the loader, taken apart.

    >>> found = problem("draft.yaml:2: rules: expected a list, found 'x'; write a dash", "name: a\\nrules: x")
    >>> found.line, found.written, found.told, found.expected, found.found, found.fix
    (2, 'rules: x', 'rules', 'a list', "'x'", 'write a dash')
    >>> problem("draft.yaml: looser than organisation default", "").told
    'looser than organisation default'
    """
    placed = _PLACED.fullmatch(message)
    line, told = (int(placed[1] or 0), placed[2][:LONGEST]) if placed else (0, message[:LONGEST])
    lines = draft.splitlines()
    written = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    parts = _PARTS.fullmatch(told)
    if parts is None:
        return Problem(line, written, told)
    return Problem(line, written, parts[1] or "", parts[2], parts[3], parts[4] or "")


def outcomes(found: Replay) -> list[Outcomes]:
    """Each outcome with how often it was reached and would be."""
    return [
        Outcomes(word, found.before.get(each, 0), found.after.get(each, 0))
        for each, word in OUTCOMES.items()
        if each in found.before or each in found.after
    ]


def flip_lines(flips: Sequence[Flip]) -> list[FlipLine]:
    """The versions that would be decided otherwise."""
    return [
        FlipLine(f.version, f.evaluation, _badge(f.before), _badge(f.after), ", ".join(f.rules), f.reason)
        for f in flips
    ]


def lost(found: Replay) -> str:
    """How many approvals would be lost, in words.

    >>> lost(Replay(judged=4, unmatched=0, other_plan=0, before={}, after={}, by_rule={}, flips=(), approved_before=4, lost=1))
    '1 of 4 (25 %)'
    """
    if found.lost_rate is None:
        return "none was there to lose"
    return f"{found.lost} of {found.approved_before} ({percent(found.lost_rate)})"


def _badge(outcome: str) -> tuple[str, str, str]:
    return outcome, OUTCOMES[outcome], MARKS[outcome]
