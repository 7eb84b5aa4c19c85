"""Intervals that narrow while a candidate is compared with its base, as the live page draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

from gate.domain.overview import Narrowing
from gate.domain.sentences import number
from gate.pages.inert import inert

WIDTH, PAD = 200.0, 4.0
SHOWN = 24
"""Capabilities that are drawn at most."""


@dataclass(frozen=True, slots=True)
class NarrowingRow:
    """One capability: in words, and as places on an axis from losing everything (left) to gaining as much (right)."""

    capability: str
    told: str
    state: str
    zero: float
    margin: float
    low: float
    high: float
    at: float


def narrowing_rows(found: Sequence[Narrowing]) -> list[NarrowingRow]:
    """Each capability that is or was compared, in the order of the comparison."""
    return [_row(each) for each in found[:SHOWN]]


def _row(found: Narrowing) -> NarrowingRow:
    return NarrowingRow(
        capability=inert(found.capability, 60),
        told=_told(found),
        state="pass" if found.lower >= -found.margin else "fail" if found.upper < -found.margin else "inconclusive",
        zero=_place(0.0),
        margin=_place(-found.margin),
        low=_place(found.lower),
        high=_place(found.upper),
        at=_place(found.value),
    )


def _told(found: Narrowing) -> str:
    low, value, high = (number(v, 2, sign=True) for v in (found.lower, found.value, found.upper))
    return f"{value} ({low} to {high}) after {found.used} of {found.of} items"


def _place(change: float) -> float:
    """Where a change of score between −1 and 1 lies on the axis."""
    return round(PAD + (WIDTH - 2 * PAD) * (min(1.0, max(-1.0, change)) + 1) / 2, 1)
