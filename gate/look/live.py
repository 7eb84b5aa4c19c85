"""Evaluations at work, drawn on a terminal: how far each is, and how each capability's interval narrows."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gate.domain.overview import Narrowing
from gate.look.following import Look, Row, Watched
from gate.look.shown import COLOURS
from gate.pages.fleet import Pace
from gate.pages.inert import inert
from gate.pages.numbers import signed
from gate.pages.wording import MARKS

WIDTH = 41
"""Characters of the axis from a change of −1 to one of +1."""
SHOWN = 24
"""Capabilities that are drawn at most."""
KEPT, LOST, OPEN = "clears it", "below it", "open"
STANDING_COLOURS: Mapping[str, str] = {KEPT: "green", LOST: "red", OPEN: "yellow"}
_FIELDS = tuple(field.name for field in fields(Narrowing))


def narrowing_of(row: Row) -> list[Narrowing]:
    """The comparisons that an evaluation tells of; none where a gate does not tell of them."""
    return [Narrowing(**{name: each[name] for name in _FIELDS}) for each in row.get("narrowing") or ()]


def doing(row: Row) -> str:
    """What is being done for an evaluation, and the last error where there was one."""
    told = (inert(row["stage"], 60), f"last error: {inert(row['reason'], 200)}" if row["reason"] else "")
    return "; ".join(each for each in told if each)


def change(found: Narrowing) -> str:
    """The change with its interval.

    >>> change(Narrowing("math", -0.1, -0.6, 0.2, 0.1, used=32, of=128))
    '−0.10 (−0.60 to +0.20)'
    """
    return f"{signed(found.value)} ({signed(found.lower)} to {signed(found.upper)})"


def standing(found: Narrowing) -> str:
    """On which side of the limit the interval lies by now."""
    return KEPT if found.lower >= -found.margin else LOST if found.upper < -found.margin else OPEN


def axis(found: Narrowing, width: int = WIDTH) -> str:
    """The interval against the margin: ``━`` the interval, ``●`` the change, ``|`` the limit, ``:`` no change.

    >>> axis(Narrowing("math", -0.5, -1.0, 0.0, 0.25, used=32, of=128), 17)
    '━━━━●━|━━········'
    """
    cells = ["·"] * width
    low, high = (_cell(bound, width) for bound in (found.lower, found.upper))
    cells[_cell(0.0, width)] = ":"
    cells[low : high + 1] = "━" * (high + 1 - low)
    cells[_cell(found.value, width)] = "●"
    cells[_cell(-found.margin, width)] = "|"
    return "".join(cells)


def _cell(change: float, width: int) -> int:
    return round((width - 1) * (min(1.0, max(-1.0, change)) + 1) / 2)


class Board:
    """The versions that are watched, as one picture. What was compared stays on it once the comparison is over."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._paces = {number: Pace() for number in watched.numbers}
        self._compared: dict[str, list[Narrowing]] = {}

    def drawn(self, look: Look) -> RenderableType:
        """The picture of one look."""
        parts = [part for number in self._watched.numbers for part in self._version(number, look.rows.get(number))]
        if look.lost:
            parts.append(Text(f"{inert(look.lost, 300)}; asking again", "yellow"))
        return Group(*parts)

    def _version(self, number: str, row: Row | None) -> list[RenderableType]:
        subject = inert(f"{self._watched.name}/{number}", 80)
        if row is None:
            return [Text(f"{subject}  looked for", "dim")]
        if row["outcome"]:
            word = f"{MARKS[row['outcome']]} {row['outcome'].replace('_', ' ')}"
            return [Text(f"{subject}  ").append(word, COLOURS[row["outcome"]])]
        compared = narrowing_of(row)
        if compared or row["state"] == "requested":
            self._compared[number] = compared
        parts: list[RenderableType] = [self._headline(subject, number, row)]
        if self._compared.get(number):
            parts.append(intervals(self._compared[number]))
        return parts

    def _headline(self, subject: str, number: str, row: Row) -> RenderableType:
        left = self._paces[number].left(row["state"], row["progress"], time.monotonic())
        line = Table.grid(padding=(0, 1))
        line.add_row(
            Text(subject, "bold"),
            ProgressBar(total=1.0, completed=row["progress"], width=20),
            Text(f"{100 * row['progress']:.0f} %"),
            Text(": ".join(each for each in (row["state"], doing(row)) if each)),
            Text(left, "dim"),
        )
        return line


def intervals(found: Sequence[Narrowing]) -> Table:
    """Each comparison as a row: items so far, the change with its interval, the limit, both on one axis."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("capability", "items", "change (interval)", "limit", "lost everything : no change", ""):
        made.add_column(heading, no_wrap=True, overflow="ellipsis")
    for each in found[:SHOWN]:
        side = standing(each)
        made.add_row(
            Text(inert(each.capability, 30)),
            Text(f"{each.used} of {each.of}"),
            Text(change(each)),
            Text(signed(-each.margin)),
            Text(axis(each), STANDING_COLOURS[side]),
            Text(side, STANDING_COLOURS[side]),
        )
    return made
