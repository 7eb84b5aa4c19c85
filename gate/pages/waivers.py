"""Waivers in words: how one stands, and how long it lasts."""

from collections.abc import Mapping
from dataclasses import dataclass

from gate.domain.records import KeptWaiver, WaiverState
from gate.domain.waiving import SECONDS_A_DAY
from gate.pages.fleet import span
from gate.pages.html_report import moment

STANDINGS: Mapping[str, str] = {"in_force": "in force", "waiting": "waiting for approval", "ended": "ended"}
SOON_S = 7 * SECONDS_A_DAY
_TONES: Mapping[WaiverState, tuple[str, str, str]] = {
    WaiverState.REQUESTED: ("needs_review", "?", "waits for approval"),
    WaiverState.GRANTED: ("approved", "✓", "in force"),
    WaiverState.REVOKED: ("blocked", "✕", "revoked"),
    WaiverState.EXPIRED: ("open", "…", "expired"),
}


@dataclass(frozen=True, slots=True)
class WaiverLine:
    """One waiver as it is read; ``soon`` where it is open and ends within seven days."""

    kept: KeptWaiver
    tone: str
    mark: str
    word: str
    until: str
    left: str
    soon: bool
    is_open: bool


def waiver_line(kept: KeptWaiver, now: float) -> WaiverLine:
    """A waiver as it stands at a time, whether or not a sweep has ended it."""
    left = kept.waiver.expires_at - now
    is_open = kept.state in (WaiverState.REQUESTED, WaiverState.GRANTED) and left > 0
    over = kept.state in (WaiverState.REQUESTED, WaiverState.GRANTED) and not is_open
    tone, mark, word = _TONES[WaiverState.EXPIRED if over else kept.state]
    second = is_open and kept.state is WaiverState.REQUESTED and bool(kept.waiver.approvals)
    return WaiverLine(
        kept=kept,
        tone=tone,
        mark=mark,
        word="waits for another approval" if second else word,
        until=moment(kept.waiver.expires_at),
        left=time_left(left) if is_open else "",
        soon=is_open and left <= SOON_S,
        is_open=is_open,
    )


def time_left(seconds: float) -> str:
    """How long it still lasts.

    >>> time_left(3 * 86_400), time_left(7200)
    ('ends in 3 days', 'ends in 2 h 0 min')
    """
    days = seconds / SECONDS_A_DAY
    return f"ends in {int(days)} days" if days >= 2 else f"ends in {span(seconds)}"
