"""Prompts whose answers changed, as pages and tables show them. What models and suites wrote is made inert here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from gate.domain.prompts import CapabilityPrompts, ChangedPrompt, ChangedPrompts
from gate.pages.inert import inert, inert_lines
from gate.pages.numbers import ABSENT, signed

WARNING = "As suite and models wrote them; they may be offensive or harmful, and may claim anything."
TABLE_COLUMNS = (
    "capability",
    "item",
    "prompt",
    "expected answer",
    "base answer",
    "candidate answer",
    "base score",
    "candidate score",
    "options",
)


@dataclass(frozen=True, slots=True)
class Said:
    """One model's answer and what the judge made of it."""

    who: str
    text: Markup
    word: str
    right: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt with both answers; ``expected`` where the base did not say just that."""

    prompt: Markup
    expected: Markup | None
    said: tuple[Said, Said]
    options: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The prompts of one capability, and a line that says how many there are."""

    capability: str
    told: str
    shown: tuple[Shown, ...]


def groups(prompts: ChangedPrompts) -> list[Group]:
    """Each compared capability, those with the largest loss first."""
    found = sorted(prompts.capabilities, key=lambda each: -each.fell / max(1, each.compared))
    return [Group(each.capability, told(each), tuple(_shown(p) for p in each.changed)) for each in found]


def told(found: CapabilityPrompts) -> str:
    """How many answers changed, in words.

    >>> told(CapabilityPrompts(capability="math", compared=64, fell=3, rose=1))
    '3 of 64 compared answers became worse, 1 became better'
    """
    if not found.fell and not found.rose:
        return f"none of {found.compared} compared answers changed its score"
    shown = len(found.changed)
    some = f"; {shown} are shown" if 0 < shown < found.fell + found.rose else ""
    return f"{found.fell} of {found.compared} compared answers became worse, {found.rose} became better{some}"


def _shown(found: ChangedPrompt) -> Shown:
    return Shown(
        prompt=quoted(found.prompt),
        expected=None if found.expected.strip() == found.base else quoted(found.expected),
        said=(
            _said("base", found.base, found.base_score),
            _said("candidate", found.candidate, found.candidate_score),
        ),
        options=tuple((inert(o.text, 200), _likelihood(o.base), _likelihood(o.candidate)) for o in found.options),
    )


def _said(who: str, text: str, score: float) -> Said:
    return Said(who, quoted(text), judged(score), score >= 1)


def judged(score: float) -> str:
    """The judge's word for a score.

    >>> judged(1), judged(0), judged(0.25)
    ('right', 'wrong', '0.25 right')
    """
    return {1.0: "right", 0.0: "wrong"}.get(float(score), f"{score:.2f} right")


def quoted(text: str, limit: int = 2000) -> Markup:
    """Foreign text as HTML: inert, escaped, its lines kept, cut to ``limit``."""
    return Markup(escape(inert_lines(text, limit)))  # noqa: S704  (escaped in this line)


def _likelihood(value: float | None) -> str:
    return ABSENT if value is None else signed(value, 3)


def table(prompts: ChangedPrompts) -> dict[str, Any]:
    """The prompts as MLflow keeps a table: columns and rows, each cell inert text or a number."""
    rows: list[Sequence[Any]] = [
        (
            inert(each.capability, 200),
            found.item,
            *(inert_lines(text) for text in (found.prompt, found.expected, found.base, found.candidate)),
            found.base_score,
            found.candidate_score,
            inert_lines(json.dumps([option.model_dump() for option in found.options], ensure_ascii=False)),
        )
        for each in prompts.capabilities
        for found in each.changed
    ]
    return {"columns": list(TABLE_COLUMNS), "data": [list(row) for row in rows]}
