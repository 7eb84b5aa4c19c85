"""Whose job comes next: workers' time shared between teams, and what somebody waits for first, without starving the rest.

A team is who registers under a name: the registered model, or what a pattern takes from its name. Names say who asks and
nobody can choose another's; tags could be set by whoever registers, and a team would have as many shares as tags.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gate.domain.errors import InvalidInput

AWAITED_S = 300.0
"""How long a question about a promotion counts as somebody's waiting: callers that wait ask again sooner."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How workers' time is shared: what of a registered model's name is the team (the whole name where nothing is given
    or nothing matches), and over how many seconds past the use of workers is counted."""

    team_pattern: str = ""
    window_s: float = 3600.0

    def team(self, model: str) -> str:
        """The team of a registered model; ``""`` is the gate's own work, which all teams share.

        >>> Sharing(r"([^.]+)[.]").team("search.ranker"), Sharing(r"([^.]+)[.]").team("ranker")
        ('search', 'ranker')
        """
        found = re.match(self.team_pattern, model) if self.team_pattern else None
        return found[1] if found else model


def checked_pattern(pattern: str) -> str:
    """The pattern, if it is a regular expression with one group. Raises `InvalidInput`."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise InvalidInput(f"GATE_TEAM_PATTERN: expected a regular expression, found {pattern!r}: {error}") from error
    if pattern and groups != 1:
        raise InvalidInput(f"GATE_TEAM_PATTERN: expected one group, the team, found {groups} in {pattern!r}")
    return pattern


@dataclass(frozen=True, slots=True)
class Lane:
    """What is due and what is used of one team (or model) on one queue. Times are Unix seconds.

    ``waiting_since`` is when the job that waits longest was due, ``awaited_since`` the same among the jobs that somebody
    waits for (``None`` without any); ``running`` jobs are held by workers; ``used_s`` is workers' time in the window.
    """

    team: str
    waiting_since: float
    awaited_since: float | None = None
    running: int = 0
    used_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A team whose job may be begun now; ``awaited`` asks for one that somebody waits for."""

    team: str
    awaited: bool


def turns(lanes: Iterable[Lane], awaited_last: bool) -> Iterator[Turn]:
    """Every team in the order in which to look for a job to begin.

    Teams go by how many jobs they have running, then by how much they used lately, then by how long they have waited. What
    somebody waits for goes before all that, but not twice running (``awaited_last``): so every other start is an
    ordinary one, and there a team that is not served uses nothing, until only those that wait longer are before it.

    >>> [turn.team for turn in turns([Lane("a", 0.0, used_s=9.0), Lane("b", 5.0)], awaited_last=False)]
    ['b', 'a']
    """
    ordered = sorted(lanes, key=lambda lane: (lane.running, lane.used_s, lane.waiting_since, lane.team))
    if not awaited_last:
        yield from (Turn(lane.team, True) for lane in ordered if lane.awaited_since is not None)
    yield from (Turn(lane.team, False) for lane in ordered)


def by_team(lanes: Iterable[Lane], sharing: Sharing) -> Sequence[Lane]:
    """Lanes of registered models added up to lanes of teams."""
    found: dict[str, Lane] = {}
    for lane in lanes:
        team = sharing.team(lane.team)
        found[team] = _added(found[team], lane) if team in found else replace(lane, team=team)
    return tuple(found.values())


def with_use(lanes: Iterable[Lane], use: Mapping[str, tuple[int, float]]) -> Sequence[Lane]:
    """The teams that wait, with what each has running and has used: ``use`` is by team, and has more teams than wait."""
    return tuple(
        replace(lane, running=use.get(lane.team, (0, 0.0))[0], used_s=use.get(lane.team, (0, 0.0))[1]) for lane in lanes
    )


def _added(one: Lane, other: Lane) -> Lane:
    awaited = [since for since in (one.awaited_since, other.awaited_since) if since is not None]
    return Lane(
        one.team,
        min(one.waiting_since, other.waiting_since),
        min(awaited, default=None),
        one.running + other.running,
        one.used_s + other.used_s,
    )
