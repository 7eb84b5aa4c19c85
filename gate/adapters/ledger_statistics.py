"""The ledger counted for metrics: what is computed here survives every restart and counts nothing twice.

Rows of ``job_run`` and ended evaluations are never taken back, so their numbers only grow, as counters must.
"""

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_controls
from gate.adapters.database import put
from gate.adapters.ledger_tables import audit, evaluation, figure, job_run
from gate.ports import Statistics, Tally

WAIT_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
RUN_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
TO_VERDICT_S = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0, 604_800.0)
POSITIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0, 10.0)

BYPASSES = {
    "promoted without approval": "unapproved",
    "promoted on an approval that was revoked": "revoked",
    "promoted on an approval that a later verdict withdrew": "withdrawn",
    "promoted on an approval that expired": "expired",
}
REVERTS = {f"{kind} {result}": result for kind in ("alias", "stage") for result in ("restored", "removed", "expired")}
REPAIRS = {"webhook created": "created", "webhook repaired": "repaired"}
_TOLD = (*BYPASSES, *REVERTS, *REPAIRS)
_NOTHING = Tally({}, 0, 0.0)


class Facts:
    """What the audit log tells, counted as it grows: entries are appended in order and never change."""

    def __init__(self) -> None:
        self._seen = 0
        self._counts: Counter[str] = Counter()
        self._outstanding: set[tuple[str, str, str]] = set()
        self._webhook_made = False
        self._lock = threading.Lock()

    def counts(self, c: sa.Connection) -> Mapping[str, int]:
        """How often each fact came about."""
        with self._lock:
            last = c.execute(sa.select(sa.func.max(audit.c.seq))).scalar() or 0
            # Oldest first: whether an entry tells something new depends on those before it.
            new = audit.c.seq > self._seen, audit.c.seq <= last, audit.c.event.in_(_TOLD)
            told = sa.select(audit.c.event, audit.c.detail).where(*new).order_by(audit.c.seq)
            for event, detail in c.execute(told).all():
                self._take(event, json.loads(detail))
            self._seen = last
            return dict(self._counts)

    def _take(self, event: str, detail: Mapping[str, Any]) -> None:
        place = (str(detail.get("alias") or detail.get("stage")), str(detail.get("version")))
        if event in BYPASSES:
            # A dispatcher that was restarted tells again of what it finds still there; that is the same bypass.
            self._counts[event] += (event, *place) not in self._outstanding
            self._outstanding.add((event, *place))
        elif event in REVERTS:
            self._counts[event] += 1
            self._outstanding = {fact for fact in self._outstanding if fact[1:] != place}
        else:
            # The first webhook is how a gate begins; each one made after it replaces one that somebody deleted.
            self._counts[event] += event != "webhook created" or self._webhook_made
            self._webhook_made = True


def statistics(c: sa.Connection, facts: Facts, now: float) -> Statistics:
    """Everything that is counted, from one snapshot."""
    ended = evaluation.c.outcome.is_not(None)
    lasted = job_run.c.ended_at - job_run.c.begun_at
    return Statistics(
        runs=_runs(c),
        waits=_tallies(c, job_run.c.queue, job_run.c.begun_at - job_run.c.queued_at, WAIT_S),
        run_seconds=_tallies(c, job_run.c.kind, lasted, RUN_S),
        compute_s=_sums(c, job_run.c.queue, lasted),
        outcomes=_outcomes(c, ended),
        would_be=_outcomes(c, sa.and_(ended, evaluation.c.dry_run)),
        to_verdict=_tally(c, evaluation.c.ended_at - evaluation.c.created_at, TO_VERDICT_S),
        basin_positions=_tally(c, evaluation.c.basin_position, POSITIONS),
        oldest_open_s=_oldest_open(c, now),
        facts=facts.counts(c),
        figures=_figures(c),
        controls=ledger_controls.counts(c),
    )


def keep(c: sa.Connection, figures: Mapping[str, float | None], now: float) -> None:
    """Keeps the newest value of each figure."""
    for name, value in figures.items():
        put(c, figure, {"name": name, "value": value, "at": now})


def _figures(c: sa.Connection) -> Mapping[str, float]:
    rows = c.execute(sa.select(figure.c.name, figure.c.value).where(figure.c.value.is_not(None)))
    return {row.name: row.value for row in rows}


def _runs(c: sa.Connection) -> Mapping[tuple[str, str], int]:
    ended = sa.select(job_run.c.kind, job_run.c.outcome, sa.func.count()).where(job_run.c.outcome.is_not(None))
    return {(row[0], row[1]): row[2] for row in c.execute(ended.group_by(job_run.c.kind, job_run.c.outcome))}


def _outcomes(c: sa.Connection, which: sa.ColumnElement[bool]) -> Mapping[str, int]:
    counted = sa.select(evaluation.c.outcome, sa.func.count()).where(which).group_by(evaluation.c.outcome)
    return {row[0]: row[1] for row in c.execute(counted)}


def _oldest_open(c: sa.Connection, now: float) -> float:
    oldest = sa.select(sa.func.min(evaluation.c.created_at)).where(evaluation.c.outcome.is_(None))
    since = c.execute(oldest).scalar()
    return 0.0 if since is None else max(0.0, now - since)


def _sums(c: sa.Connection, by: sa.ColumnElement[str], value: sa.ColumnElement[Any]) -> Mapping[str, float]:
    query = sa.select(by, sa.func.sum(_sound(value))).where(value.is_not(None)).group_by(by)
    return {row[0]: row[1] for row in c.execute(query)}


def _tallies(
    c: sa.Connection, by: sa.ColumnElement[str], value: sa.ColumnElement[Any], bounds: Sequence[float]
) -> Mapping[str, Tally]:
    query = sa.select(by, *_columns(value, bounds)).where(value.is_not(None)).group_by(by)
    return {row[0]: _made(row[1:], bounds) for row in c.execute(query)}


def _tally(c: sa.Connection, value: sa.ColumnElement[Any], bounds: Sequence[float]) -> Tally:
    return _made(c.execute(sa.select(*_columns(value, bounds)).where(value.is_not(None))).one(), bounds)


def _columns(value: sa.ColumnElement[Any], bounds: Sequence[float]) -> list[sa.ColumnElement[Any]]:
    held = [sa.func.sum(sa.case((value <= bound, 1), else_=0)) for bound in bounds]
    return [sa.func.count(), sa.func.sum(_sound(value)), *held]


def _sound(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # The clocks of two hosts differ a little; a sum that must only grow takes no negative.
    return sa.case((value > 0, value), else_=0.0)


def _made(row: Sequence[Any], bounds: Sequence[float]) -> Tally:
    count, total, *held = row
    return Tally(dict(zip(bounds, held, strict=True)), count, float(total)) if count else _NOTHING
