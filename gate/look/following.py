"""Looking at evaluations again and again until each has ended, also across moments in which the gate does not answer."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.client import GateClient, path
from gate.domain.errors import NotFound, Unavailable

APPEARS_WITHIN_S = 30.0
"""MLflow's delivery takes a moment: a version may be looked for before its evaluation was asked for."""
LOOK_EVERY_S = 0.5
PAGE = 500

Row = Mapping[str, Any]
"""An evaluation as ``/v1/evaluations`` tells it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of the versions by now, and why the gate did not answer this time; empty where it did."""

    rows: Mapping[str, Row]
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """Versions of one registered model that are watched until ``ends`` on the monotonic clock."""

    name: str
    numbers: Sequence[str]
    ends: float


def looks(gate: GateClient, watched: Watched) -> Iterator[Look]:
    """One look after another, until every version's evaluation has ended.

    A gate that has answered before and is silent now is asked again until the time is over. Raises `Unavailable` where
    it never answered or the time is over, and `NotFound` where a version has no evaluation.
    """
    appears = min(watched.ends, time.monotonic() + APPEARS_WITHIN_S)
    rows: dict[str, Row] = {}
    answered = False
    while True:
        lost = ""
        try:
            _renew(gate, watched, rows)
            answered = True
        except Unavailable as error:
            if not answered:
                raise
            lost = str(error)
        if not lost and time.monotonic() >= appears:
            _refuse_absent(watched, rows)
        yield Look(dict(rows), lost)
        if all(number in rows and rows[number]["outcome"] for number in watched.numbers):
            return
        if time.monotonic() >= watched.ends:
            raise Unavailable(_too_late(watched, rows, lost))
        time.sleep(LOOK_EVERY_S)


def _renew(gate: GateClient, watched: Watched, rows: dict[str, Row]) -> None:
    """Looks for what was not found yet, and asks anew for what has not ended."""
    for number, row in rows.items():
        if not row["outcome"]:
            rows[number] = gate.get(path("v1", "evaluations", row["key"]))
    absent = set(watched.numbers) - set(rows)
    if absent:
        rows.update(_newest(gate, watched.name, absent))


def _newest(gate: GateClient, name: str, numbers: set[str]) -> dict[str, Row]:
    """The newest evaluation of each of these versions that has one, looked for a page at a time."""
    found: dict[str, Row] = {}
    for offset in range(0, 1_000_000, PAGE):
        rows = gate.get(f"/v1/evaluations?limit={PAGE}&offset={offset}&name={path(name)[1:]}")["evaluations"]
        for row in rows:
            if row["version"] in numbers:
                found.setdefault(row["version"], row)
        if len(rows) < PAGE or len(found) == len(numbers):
            break
    return found


def _refuse_absent(watched: Watched, rows: Mapping[str, Row]) -> None:
    absent = [number for number in watched.numbers if number not in rows]
    if absent:
        raise NotFound(
            f"expected an evaluation of version {', '.join(absent)} of {watched.name!r}, found none; is it registered in "
            "MLflow, and is MLflow's webhook set? basin-gate doctor tells"
        )


def _too_late(watched: Watched, rows: Mapping[str, Row], lost: str) -> str:
    late = [number for number in watched.numbers if number not in rows or not rows[number]["outcome"]]
    state = {number: rows[number]["state"] if number in rows else "not asked for" for number in late}
    told = "; ".join(f"expected a verdict on {watched.name}/{n} in time, found it {state[n]}" for n in late)
    return f"{told}; watch it again" + (f" (at last the gate did not answer: {lost})" if lost else "")
