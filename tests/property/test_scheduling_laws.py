"""Laws of whose turn it is: nobody starves, teams share, and who waits for an answer does not take it from the others."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.domain.errors import InvalidInput
from gate.domain.scheduling import Lane, Sharing, Turn, by_team, checked_pattern, turns

WINDOW_S = 100.0
TEAMS = "abc"


@dataclass
class Asked:
    """A job in the simulated queue."""

    team: str
    at: float
    seconds: float
    awaited: bool = False
    begun_at: float | None = None

    @property
    def ended_at(self) -> float | None:
        return None if self.begun_at is None else self.begun_at + self.seconds


@dataclass
class Floor:
    """Workers that begin what the turns say, in simulated time: the naive reference of what the ledger does."""

    workers: int
    jobs: list[Asked]
    now: float = 0.0
    awaited_last: bool = False
    begun: list[Asked] = field(default_factory=list)

    def run(self) -> None:
        """Until every job has been begun."""
        while waiting := [job for job in self.jobs if job.begun_at is None]:
            due = [job for job in waiting if job.at <= self.now]
            if due and len(self.running()) < self.workers:
                self.begin(due)
                continue
            ends = [job.ended_at for job in self.running() if job.ended_at is not None]
            later = [job.at for job in waiting if job.at > self.now]
            self.now = min(ends if due else ends + later)

    def begin(self, due: list[Asked]) -> None:
        turn = next(turns([self.lane(team, due) for team in {job.team for job in due}], self.awaited_last))
        mine = [job for job in due if job.team == turn.team and (job.awaited or not turn.awaited)]
        job = min(mine, key=lambda job: job.at)
        job.begun_at, self.awaited_last = self.now, turn.awaited
        self.begun.append(job)

    def running(self) -> list[Asked]:
        return [job for job in self.begun if job.ended_at is not None and job.ended_at > self.now]

    def lane(self, team: str, due: list[Asked]) -> Lane:
        mine = [job for job in due if job.team == team]
        awaited = [job.at for job in mine if job.awaited]
        return Lane(
            team,
            min(job.at for job in mine),
            min(awaited, default=None),
            sum(job.team == team for job in self.running()),
            sum(self.used(job) for job in self.begun if job.team == team),
        )

    def used(self, job: Asked) -> float:
        assert job.begun_at is not None
        assert job.ended_at is not None
        return max(0.0, min(job.ended_at, self.now) - max(job.begun_at, self.now - WINDOW_S))


jobs = st.builds(
    Asked,
    team=st.sampled_from(TEAMS),
    at=st.floats(0, 200),
    seconds=st.floats(1, 30),
    awaited=st.booleans(),
)
lanes = st.lists(
    st.builds(
        Lane,
        team=st.text("abcdef", min_size=1, max_size=2),
        waiting_since=st.floats(0, 1e6),
        awaited_since=st.none() | st.floats(0, 1e6),
        running=st.integers(0, 3),
        used_s=st.floats(0, 1e5),
    ),
    unique_by=lambda lane: lane.team,
    max_size=8,
)


@given(lanes=lanes, awaited_last=st.booleans())
def test_every_waiting_team_has_a_turn_and_the_order_does_not_depend_on_how_they_are_told(
    lanes: list[Lane], awaited_last: bool
) -> None:
    order = list(turns(lanes, awaited_last))
    assert {turn.team for turn in order if not turn.awaited} == {lane.team for lane in lanes}
    assert order == list(turns(lanes[::-1], awaited_last))
    assert len(order) == len(set(order))


@given(lanes=lanes)
def test_after_a_start_out_of_turn_the_next_one_is_in_turn(lanes: list[Lane]) -> None:
    assert not any(turn.awaited for turn in turns(lanes, awaited_last=True))


@given(lanes=lanes, more=st.floats(0, 1e4))
def test_using_more_never_brings_a_team_forward(lanes: list[Lane], more: float) -> None:
    for lane in lanes:
        rest = [other for other in lanes if other is not lane]
        heavier = Lane(lane.team, lane.waiting_since, lane.awaited_since, lane.running, lane.used_s + more)
        place = [turn.team for turn in turns(lanes, True)].index(lane.team)
        assert [turn.team for turn in turns([*rest, heavier], True)].index(lane.team) >= place


@settings(deadline=None, max_examples=25)
@given(asked=st.lists(jobs, min_size=1, max_size=40), workers=st.integers(1, 3))
def test_of_two_starts_on_a_queue_at_most_one_is_out_of_turn_and_every_job_is_begun(
    asked: list[Asked], workers: int
) -> None:
    floor = Floor(workers, asked)
    floor.run()
    assert sorted(map(id, floor.begun)) == sorted(map(id, asked))


@settings(deadline=None, max_examples=25)
@given(
    flood=st.integers(1, 3),
    seconds=st.floats(1, 20),
    at=st.floats(0, 50),
    awaited=st.booleans(),
)
def test_a_teams_only_job_is_begun_within_a_few_starts_whatever_the_others_pile_up(
    flood: int, seconds: float, at: float, awaited: bool
) -> None:
    others = [Asked(team, 0.0, seconds, awaited) for team in "bcd"[:flood] for _ in range(15)]
    only = Asked("a", at, seconds)
    floor = Floor(1, [*others, only])
    floor.run()
    before = [job for job in floor.begun[: floor.begun.index(only)] if (job.begun_at or 0.0) > at]
    # Before it may go each team that used as little and waits longer, once, and as many starts out of turn.
    assert len(before) <= 2 * flood


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(5, 20))
def test_a_team_that_used_the_window_alone_is_served_again_before_those_that_come_after_it(
    seed: int, seconds: float
) -> None:
    """New teams that never used anything come without end; one that used much still gets its turn once that is past."""
    heavy = [Asked("heavy", 0.0, seconds) for _ in range(int(2 * WINDOW_S / seconds))]
    new = [Asked(f"new-{seed}-{n}", WINDOW_S + n * seconds * 0.9, seconds) for n in range(80)]
    floor = Floor(1, [*heavy, *new])
    floor.run()
    starts = [job.begun_at or 0.0 for job in floor.begun if job.team == "heavy"]
    assert max(later - earlier for earlier, later in pairwise(starts)) <= WINDOW_S + 2.01 * seconds


@settings(deadline=None, max_examples=25)
@given(st.floats(2, 10), st.floats(2, 10))
def test_two_teams_with_enough_to_do_use_workers_equally_however_long_their_jobs_are(
    one_s: float, other_s: float
) -> None:
    asked = [Asked("a", 0.0, one_s) for _ in range(80)] + [Asked("b", 0.0, other_s) for _ in range(80)]
    floor = Floor(1, asked)
    floor.run()
    both = [job for job in floor.begun if (job.begun_at or 0.0) < 80 * min(one_s, other_s)]
    used = {team: sum(job.seconds for job in both if job.team == team) for team in "ab"}
    assert abs(used["a"] - used["b"]) <= 0.1 * (used["a"] + used["b"]) + 2 * (one_s + other_s)


def test_what_somebody_waits_for_goes_before_its_own_teams_pile() -> None:
    asked = [Asked("a", float(n), 10.0) for n in range(20)] + [Asked("a", 30.0, 10.0, awaited=True)]
    floor = Floor(1, asked)
    floor.run()
    assert [job.awaited for job in floor.begun].index(True) == 3


@given(lanes=lanes)
def test_lanes_of_models_add_up_to_lanes_of_their_teams(lanes: list[Lane]) -> None:
    sharing = Sharing("([a-c])")
    teams = {lane.team: lane for lane in by_team(lanes, sharing)}
    assert sum(lane.running for lane in teams.values()) == sum(lane.running for lane in lanes)
    for lane in lanes:
        team = teams[sharing.team(lane.team)]
        assert team.waiting_since <= lane.waiting_since
        assert lane.awaited_since is None or (team.awaited_since or 0.0) <= lane.awaited_since


def test_a_team_is_what_the_pattern_takes_from_the_name_or_else_the_name() -> None:
    assert [Sharing("([^-]+)-").team(name) for name in ("search-ranker", "search", "")] == ["search", "search", ""]
    assert Sharing().team("search-ranker") == "search-ranker"
    assert list(turns([], awaited_last=False)) == []
    assert next(turns([Lane("a", 1.0, awaited_since=1.0)], awaited_last=False)) == Turn("a", awaited=True)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "regular expression"), ("a", "one group"), ("(a)(b)", "found 2")]
)
def test_a_pattern_that_names_no_team_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        checked_pattern(pattern)
