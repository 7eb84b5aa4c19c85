"""``basin-gate watch``: evaluations followed until their verdicts, with the intervals that narrow meanwhile."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from gate.client import GateClient
from gate.domain.overview import Narrowing
from gate.domain.verdict import Outcome
from gate.look.following import Look, Row, Watched, looks
from gate.look.live import Board, change, doing, narrowing_of, standing
from gate.pages.inert import inert
from gate.pages.numbers import signed
from gate.settings import settings

EXIT = {Outcome.APPROVED: 0, Outcome.BLOCKED: 1, Outcome.NEEDS_REVIEW: 3, Outcome.ERROR: 2}
WORST_FIRST = (Outcome.ERROR, Outcome.BLOCKED, Outcome.NEEDS_REVIEW, Outcome.APPROVED)


def watch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")],
    numbers: Annotated[list[str], typer.Argument(metavar="VERSION...", help="Its version numbers; one or several.")],
    limit_minutes: Annotated[float, typer.Option(min=0, help="Give up after this long.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print each change as a line of JSON.")] = False,
) -> None:
    """Follow evaluations until their verdicts. Exit status 0 approved, 1 blocked, 3 needs review, 2 error or given up.

    Meanwhile it shows the interval of each capability against its limit. Of several versions the worst outcome is the
    status. A gate that stops answering is asked again until the time is over.
    """
    watched = Watched(name, tuple(dict.fromkeys(numbers)), time.monotonic() + 60 * limit_minutes)
    found = looks(GateClient.of(settings()), watched)
    if as_json:
        rows = _ended(_as_json(found), watched)
    else:
        rows = _ended(_drawn(found, watched) if sys.stderr.isatty() else _as_lines(found), watched)
        sys.stdout.writelines(_verdicts(rows, several=len(rows) > 1))
    outcomes = {Outcome(row["outcome"]) for row in rows}
    raise typer.Exit(EXIT[next(each for each in WORST_FIRST if each in outcomes)])


def _ended(found: Iterable[Look], watched: Watched) -> list[Row]:
    """The evaluations as the last look saw them, in the order they were asked for."""
    rows: Mapping[str, Row] = {}
    for look in found:
        rows = look.rows
    return [rows[number] for number in watched.numbers]


def _verdicts(rows: Iterable[Row], *, several: bool) -> Iterator[str]:
    for row in rows:
        subject = f"{inert(row['name'], 200)}/{inert(row['version'], 20)} " if several else ""
        yield f"{subject}{row['outcome'].replace('_', ' ')}: {inert(row['reason'] or '', 2000)}\n"


def _drawn(found: Iterable[Look], watched: Watched) -> Iterator[Look]:
    """Draws each look over the one before; nothing of it is left at the end."""
    board = Board(watched)
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        for look in found:
            live.update(board.drawn(look), refresh=True)
            yield look


def _as_lines(found: Iterable[Look]) -> Iterator[Look]:
    """Writes a line for each change: of state or stage, of a comparison, of whether the gate answers."""
    said: dict[tuple[str, str], str] = {}
    for look in _telling_of_silence(found):
        for row in look.rows.values():
            for about, line in () if row["outcome"] else _lines(row):
                if said.get((row["version"], about)) != line:
                    said[row["version"], about] = line
                    sys.stderr.write(f"{inert(row['name'], 200)}/{inert(row['version'], 20)}\t{line}\n")
        sys.stderr.flush()
        yield look


def _lines(row: Row) -> Iterator[tuple[str, str]]:
    yield "", f"{row['state']}\t{doing(row)}"
    for each in narrowing_of(row):
        yield each.capability, _compared(each)


def _compared(found: Narrowing) -> str:
    return (
        f"{inert(found.capability, 60)}\t{found.used} of {found.of} items\t{change(found)}\t"
        f"limit {signed(-found.margin)}\t{standing(found)}"
    )


def _as_json(found: Iterable[Look]) -> Iterator[Look]:
    """Writes each evaluation that changed as a line of JSON; whether the gate answers is for the standard error."""
    before: dict[str, Row] = {}
    for look in _telling_of_silence(found):
        for number, row in look.rows.items():
            if _told(row) != _told(before.get(number, {})):
                sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        before = dict(look.rows)
        yield look


def _told(row: Row) -> list[object]:
    return [row.get(key) for key in ("state", "stage", "progress", "outcome", "reason", "narrowing")]


def _telling_of_silence(found: Iterable[Look]) -> Iterator[Look]:
    """Says once that the gate stopped answering, and once that it answers again."""
    silent = False
    for look in found:
        if bool(look.lost) != silent:
            silent = bool(look.lost)
            said = f"{inert(look.lost, 400)}; asking again" if silent else "the gate answers again"
            sys.stderr.write(f"basin-gate: {said}\n")
        yield look
