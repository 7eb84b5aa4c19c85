"""Evaluations in a list: each as one line that says what, how it fares, and since when."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from gate.domain.overview import EvaluationRow, FleetRow
from gate.pages.charts.bullets import place_bar
from gate.pages.html_report import moment
from gate.pages.numbers import ABSENT, percent, signed
from gate.pages.wording import MARKS

OUTCOMES: Mapping[str, str] = {
    "approved": "approved",
    "blocked": "blocked",
    "needs_review": "needs review",
    "error": "error",
    "open": "in progress",
}
SORTS: Mapping[str, str] = {
    "newest": "newest first",
    "oldest": "oldest first",
    "name": "by name",
    "farthest": "farthest from its base first",
}
STEPS = ("requested", "inspecting", "measuring", "judging", "done")


@dataclass(frozen=True, slots=True)
class Line:
    """One evaluation in a list."""

    key: str
    name: str
    version: str
    outcome: str
    word: str
    mark: str
    told: str
    percent: int
    position: str
    bar: Markup | None
    change: str
    since: str
    at: str


def line(row: FleetRow, now: float) -> Line:
    """An evaluation as a line."""
    evaluation = row.evaluation
    outcome = evaluation.outcome or "open"
    return Line(
        key=evaluation.request.key,
        name=evaluation.request.version.name,
        version=evaluation.request.version.version,
        outcome=outcome,
        word=OUTCOMES[outcome] if evaluation.outcome else evaluation.state,
        mark=MARKS[outcome],
        told=told(evaluation),
        percent=round(100 * evaluation.progress),
        position=ABSENT if row.basin_position is None else percent(row.basin_position),
        bar=None if row.basin_position is None else place_bar(row.basin_position),
        change=ABSENT if row.worst_change is None else signed(row.worst_change),
        since=ago(now - evaluation.created_at),
        at=moment(evaluation.created_at),
    )


def told(row: EvaluationRow) -> str:
    """The reason where there is one, else what is being done."""
    if row.outcome is not None:
        return row.reason or ""
    doing = row.stage or {"requested": "waits for a worker"}.get(row.state, "")
    return f"{doing}; last error: {row.reason}" if row.reason else doing


class Pace:
    """How fast a step goes, from what was seen of it: the time left is told once there is enough to tell it by."""

    LEAST_S, LEAST_SHARE = 5.0, 0.02

    def __init__(self) -> None:
        self._begun: tuple[str, float, float] | None = None

    def left(self, state: str, progress: float, now: float) -> str:
        """The time left of this step in words; empty while it cannot be told.

        >>> pace = Pace()
        >>> [pace.left("measuring", share, at) for share, at in ((0.1, 0.0), (0.11, 6.0), (0.4, 60.0))]
        ['', '', 'about 2 min left']
        """
        if self._begun is None or self._begun[0] != state or progress < self._begun[1]:
            self._begun = (state, progress, now)
        done, took = progress - self._begun[1], now - self._begun[2]
        if done < self.LEAST_SHARE or took < self.LEAST_S:
            return ""
        return f"about {span(took * (1 - progress) / done)} left"


def ago(seconds: float) -> str:
    """How long ago, to one unit.

    >>> ago(5), ago(600), ago(7200), ago(400_000)
    ('just now', '10 min ago', '2 h ago', '5 days ago')
    """
    for size, word in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= (2 * size if word == "days" else size):
            return f"{round(seconds / size)} {word} ago"
    return "just now"


def span(seconds: float) -> str:
    """A length of time, to two units.

    >>> span(5), span(600), span(7260)
    ('5 s', '10 min', '2 h 1 min')
    """
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
