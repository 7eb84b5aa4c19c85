"""What ended runs and evaluations add up to, each counted once: a scrape reads sums, not a history.

A row is marked as counted in the transaction that adds it to the table ``tally``; what is not marked yet is added at each
scrape. So the numbers are right at any moment, whichever process tells them, and only grow, as counters must. Whoever
changes the bounds below empties ``tally`` and takes the marks away in a migration.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gate.adapters.ledger_tables import evaluation, job_run, tally
from gate.domain.records import Tally

WAIT_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
RUN_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
TO_VERDICT_S = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0, 604_800.0)
POSITIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0, 10.0)

RUNS, WAITS, RUN_SECONDS, COMPUTE = "runs", "waits", "run_seconds", "compute"
OUTCOMES, WOULD_BE, TO_VERDICT, POSITION = "outcomes", "would_be", "to_verdict", "position"
COUNT, TOTAL = "count", "total"
PAST_ALL = "inf"

WORTHWHILE = 500
"""So many rows that are not counted yet are worth a transaction."""
AT_ONCE = 20_000
"""Rows of each table counted in one transaction: after an upgrade there may be a million."""
GRAIN = 2.0**-12
"""Values are added in multiples of this (about a quarter of a millisecond), which doubles add without an error: a sum
that came out smaller by its last digit would look like a restart to Prometheus."""

Cell: TypeAlias = tuple[str, str, str]
Sums: TypeAlias = Mapping[Cell, float]

_RUN: tuple[sa.Column[Any], ...] = (
    job_run.c.kind,
    job_run.c.queue,
    job_run.c.queued_at,
    job_run.c.begun_at,
    job_run.c.ended_at,
    job_run.c.outcome,
)
_EVALUATION: tuple[sa.Column[Any], ...] = (
    evaluation.c.outcome,
    evaluation.c.dry_run,
    evaluation.c.created_at,
    evaluation.c.ended_at,
    evaluation.c.basin_position,
    evaluation.c.trace,
)
_RUN_UNCOUNTED = (job_run.c.counted.is_(None),)
_EVALUATION_UNCOUNTED = (evaluation.c.outcome.is_not(None), evaluation.c.counted.is_(None))


def sums(c: sa.Connection) -> tuple[Sums, Sequence[sa.Row[Any]]]:
    """Everything so far, from one snapshot; and the evaluations in it that are not in the table yet, the newest among
    them."""
    found: defaultdict[Cell, float] = defaultdict(float)
    for row in c.execute(sa.select(tally)):
        found[row.series, row.label, row.cell] += row.value
    runs = c.execute(sa.select(*_RUN).where(*_RUN_UNCOUNTED)).all()
    evaluations = c.execute(sa.select(*_EVALUATION).where(*_EVALUATION_UNCOUNTED)).all()
    return _added(chain(map(_of_run, runs), map(_of_evaluation, evaluations)), found), evaluations


def count(c: sa.Connection) -> int:
    """Counts ended rows that are not counted yet, where there are enough; how many that were."""
    which = sa.and_(*_RUN_UNCOUNTED, job_run.c.outcome.is_not(None))
    some = sa.select(sa.literal(1)).where(which).limit(WORTHWHILE).subquery()
    if c.execute(sa.select(sa.func.count()).select_from(some)).scalar_one() < WORTHWHILE:
        return 0
    ended = sa.select(job_run.c.job, job_run.c.epoch).where(which).limit(AT_ONCE).with_for_update(skip_locked=True)
    marked = sa.update(job_run).where(sa.tuple_(job_run.c.job, job_run.c.epoch).in_(ended)).values(counted=True)
    runs = c.execute(marked.returning(*_RUN)).all()
    keys = sa.select(evaluation.c.key).where(*_EVALUATION_UNCOUNTED).limit(AT_ONCE).with_for_update(skip_locked=True)
    evaluations = _mark(c, evaluation.c.key.in_(keys))
    _keep(c, _added(chain(map(_of_run, runs), map(_of_evaluation, evaluations))))
    return len(runs) + len(evaluations)


def count_evaluation(c: sa.Connection, key: str) -> None:
    """Counts one ended evaluation as it is now, before something changes about it that was counted."""
    _keep(c, _added(map(_of_evaluation, _mark(c, evaluation.c.key == key))))


def counts(found: Sums, series: str) -> Mapping[str, int]:
    """How many there are in a series, by its label."""
    return {label: int(value) for (s, label, cell), value in found.items() if (s, cell) == (series, COUNT)}


def totals(found: Sums, series: str) -> Mapping[str, float]:
    """The sums of a series, by its label."""
    return {label: value for (s, label, cell), value in found.items() if (s, cell) == (series, TOTAL)}


def spreads(found: Sums, series: str, bounds: Sequence[float]) -> Mapping[str, Tally]:
    """How the values of a series are spread, by its label."""
    cells: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (s, label, cell), value in found.items():
        if s == series:
            cells[label][cell] = value
    return {label: _spread(given, bounds) for label, given in cells.items()}


def _spread(cells: Mapping[str, float], bounds: Sequence[float]) -> Tally:
    *at_most, all_of_them = accumulate(int(cells.get(cell, 0)) for cell in (*map(str, bounds), PAST_ALL))
    return Tally(dict(zip(bounds, at_most, strict=True)), all_of_them, cells[TOTAL])


def _mark(c: sa.Connection, which: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
    marked = sa.update(evaluation).where(which, *_EVALUATION_UNCOUNTED).values(counted=True)
    return c.execute(marked.returning(*_EVALUATION)).all()


def _keep(c: sa.Connection, added: Sums) -> None:
    if not added:
        return
    dialect = sqlite if c.dialect.name == "sqlite" else postgresql
    # In one order: two transactions that add to the same sums do not deadlock.
    rows = [{"series": s, "label": label, "cell": k, "value": v} for (s, label, k), v in sorted(added.items())]
    statement = dialect.insert(tally).values(rows)
    more = {"value": tally.c.value + statement.excluded.value}
    c.execute(statement.on_conflict_do_update(index_elements=["series", "label", "cell"], set_=more))


def _added(rows: Iterable[Iterator[tuple[Cell, float]]], to: defaultdict[Cell, float] | None = None) -> Sums:
    found = defaultdict[Cell, float](float) if to is None else to
    for cell, value in chain.from_iterable(rows):
        found[cell] += value
    return found


def _of_run(row: sa.Row[Any]) -> Iterator[tuple[Cell, float]]:
    """What a run adds: its wait from when it began, the rest once it has ended."""
    yield from _values(WAITS, row.queue, row.begun_at - row.queued_at, WAIT_S)
    if row.outcome is None:
        return
    lasted = row.ended_at - row.begun_at
    yield from _values(RUN_SECONDS, row.kind, lasted, RUN_S)
    yield (COMPUTE, row.queue, TOTAL), _sound(lasted)
    yield (RUNS, f"{row.kind}/{row.outcome}", COUNT), 1


def _of_evaluation(row: sa.Row[Any]) -> Iterator[tuple[Cell, float]]:
    yield (OUTCOMES, row.outcome, COUNT), 1
    if row.dry_run:
        yield (WOULD_BE, row.outcome, COUNT), 1
    if row.ended_at is not None:
        yield from _values(TO_VERDICT, "", row.ended_at - row.created_at, TO_VERDICT_S)
    if row.basin_position is not None:
        yield from _values(POSITION, "", row.basin_position, POSITIONS)


def _values(series: str, label: str, value: float, bounds: Sequence[float]) -> Iterator[tuple[Cell, float]]:
    place = bisect_left(bounds, value)
    yield (series, label, str(bounds[place]) if place < len(bounds) else PAST_ALL), 1
    yield (series, label, TOTAL), _sound(value)


def _sound(value: float) -> float:
    """What is added to a sum. The clocks of two hosts differ a little; a sum that must only grow takes no negative.

    >>> _sound(-0.1), _sound(0.25)
    (0.0, 0.25)
    """
    return round(max(0.0, value) / GRAIN) * GRAIN
