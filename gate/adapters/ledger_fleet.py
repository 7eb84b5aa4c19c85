"""The ledger as people look at it: pages of evaluations, and what is being worked on now. Nothing here writes."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_evaluations
from gate.adapters.ledger_documents import read_document
from gate.adapters.ledger_tables import QUEUED, RUNNING, evaluation, job, profile
from gate.domain.errors import InvalidInput
from gate.domain.evidence import BasinProfile
from gate.domain.jobs import PROFILE
from gate.domain.overview import Fleet, FleetQuery, FleetRow, JobAtWork, PolicyUse

_NOWHERE = -1.0
"""Stands for an unknown number, so that rows without one have a place in the order."""

Order = tuple[tuple[sa.ColumnElement[Any], bool], ...]
_KEY = (evaluation.c.key, False)
_POSITION = sa.func.coalesce(evaluation.c.basin_position, _NOWHERE)
ORDERS: Mapping[str, Order] = {
    "newest": ((evaluation.c.created_at, True), _KEY),
    "oldest": ((evaluation.c.created_at, False), _KEY),
    "name": ((evaluation.c.name, False), (evaluation.c.created_at, True), _KEY),
    "farthest": ((_POSITION, True), _KEY),
}
"""Each way to sort: columns, and whether the largest comes first. The key last makes every order total."""


def fleet(c: sa.Connection, query: FleetQuery) -> Fleet:
    """One page. The next one begins after the last row's own values, however many rows come before it."""
    order = ORDERS[query.sort]
    chosen = sa.select(*(column for column, _ in order)).where(*_filters(query))
    if query.after is not None:
        chosen = chosen.where(_beyond(order, query.after))
    ordered = chosen.order_by(*(column.desc() if down else column for column, down in order))
    found = c.execute(ordered.limit(query.limit + 1)).all()
    shown = found[: query.limit]
    more = tuple(shown[-1]) if len(found) > query.limit else None
    return Fleet(_rows(c, [row[-1] for row in shown]), more, _counts(c, query))


def at_work(c: sa.Connection, limit: int) -> Sequence[JobAtWork]:
    """Jobs held by a worker, then those queued, each longest first."""
    columns = (job.c.key, job.c.kind, job.c.queue, job.c.state, job.c.owner, job.c.attempts, job.c.queued_at)
    wanted = sa.select(*columns, job.c.progress, job.c.lease_until, job.c.error).where(
        job.c.state.in_((RUNNING, QUEUED))
    )
    rows = c.execute(wanted.order_by(job.c.state.desc(), job.c.queued_at, job.c.key).limit(limit)).mappings()
    return [
        JobAtWork(**{k: v for k, v in row.items() if k != "progress"}, **_progress(row["progress"])) for row in rows
    ]


def profiles(c: sa.Connection, base_digest: str) -> Sequence[BasinProfile]:
    """A base's profiles, newest first."""
    # Keys of one base lie together: a range of the primary key, not a search through all of them.
    low, high = f"{PROFILE}:{base_digest}:", f"{PROFILE}:{base_digest};"
    wanted = sa.select(profile).where(profile.c.key >= low, profile.c.key < high).order_by(profile.c.saved_at.desc())
    return [read_document(BasinProfile, row.key, row.body, row.schema) for row in c.execute(wanted)]


def policy_uses(c: sa.Connection) -> Sequence[PolicyUse]:
    """What each text of each policy was asked to judge."""
    texts = _of_request(c, "policy").label("policy"), _of_request(c, "policy_digest").label("digest")
    outcome = sa.func.coalesce(ledger_evaluations.shown_outcome(), "open").label("outcome")
    counted = sa.func.count().label("number"), sa.func.min(evaluation.c.created_at).label("since")
    rows = c.execute(sa.select(*texts, outcome, *counted).group_by(*texts, outcome).order_by(*texts, outcome)).all()
    return [
        PolicyUse(*text, min(row.since for row in found), {row.outcome: row.number for row in found})
        for text, group in groupby(rows, lambda row: (row.policy, row.digest))
        for found in [list(group)]
    ]


def _of_request(c: sa.Connection, name: str) -> sa.ColumnElement[str]:
    """A text inside the stored request."""
    if c.dialect.name == "sqlite":
        return sa.func.json_extract(evaluation.c.request, f"$.{name}", type_=sa.Text)
    found: sa.ColumnElement[str] = sa.cast(evaluation.c.request, sa.JSON)[name].as_string()
    return found


def _progress(progress: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not progress:
        return {"stage": "", "fraction": 0.0}
    return {"stage": str(progress["stage"]), "fraction": float(progress["fraction"])}


def _filters(query: FleetQuery, *, outcome: bool = True) -> list[sa.ColumnElement[bool]]:
    chosen: list[sa.ColumnElement[bool]] = []
    if outcome and query.outcome == "open":
        chosen.append(evaluation.c.outcome.is_(None))
    elif outcome and query.outcome is not None:
        chosen.append(ledger_evaluations.shown_outcome() == query.outcome)
    if query.text:
        chosen.append(sa.func.lower(evaluation.c.name).contains(query.text.lower(), autoescape=True))
    if query.base_digest is not None:
        chosen.append(evaluation.c.base_digest == query.base_digest)
    if query.standing:
        chosen.append(ledger_evaluations.not_reopened())
    return chosen


def _beyond(order: Order, after: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Strictly after these values in this order."""
    if len(after) != len(order):
        raise InvalidInput("expected a place in this order, found one of another; begin with the first page")
    beyond: sa.ColumnElement[bool] = sa.false()
    for (column, down), value in reversed(list(zip(order, after, strict=True))):
        if not isinstance(value, str if column.type.python_type is str else (int, float)):
            raise InvalidInput(f"expected a place in this order, found {value!r} in it; begin with the first page")
        further = column < value if down else column > value
        beyond = sa.or_(further, sa.and_(column == value, beyond))
    return beyond


def _rows(c: sa.Connection, keys: Sequence[str]) -> Sequence[FleetRow]:
    """The rows of these keys in their order."""
    columns = (evaluation.c.key, evaluation.c.basin_position, evaluation.c.worst_change)
    numbers = {row.key: row for row in c.execute(sa.select(*columns).where(evaluation.c.key.in_(keys)))}
    rows = {row.request.key: row for row in ledger_evaluations.several(c, keys)}
    return [FleetRow(rows[key], numbers[key].basin_position, numbers[key].worst_change) for key in keys]


def _counts(c: sa.Connection, query: FleetQuery) -> Mapping[str, int]:
    """How many there are of each outcome, ``open`` for none yet, whichever of them is looked at."""
    outcome: sa.ColumnElement[str] = sa.func.coalesce(ledger_evaluations.shown_outcome(), "open")
    counted = sa.select(outcome, sa.func.count()).where(*_filters(query, outcome=False)).group_by(outcome)
    return {row[0]: row[1] for row in c.execute(counted)}
