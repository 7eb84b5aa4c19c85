"""The outbox: what must happen outside the database, written in the transaction that made it necessary."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import evaluation, job, outbox
from gate.domain.records import OutboxItem

DOORBELL = "doorbell"
PROJECT = "project"
NOTIFY = "notify"
KEPT_S = 7 * 86_400.0


def ring(c: sa.Connection, key: str, kind: str, queue: str, now: float, at: float | None = None) -> None:
    """Asks for a worker to be told of a job, now or ``at`` a later time."""
    due = now if at is None else at
    rung = sa.update(job).where(job.c.key == key).values(rung_at=due).returning(job.c.trace)
    payload = {"queue": queue, "kind": kind, "key": key, "trace": c.execute(rung).scalar()}
    _post(c, DOORBELL, key, payload, now, due)


def project(c: sa.Connection, evaluation_key: str, now: float) -> None:
    """Asks for an ended evaluation to be written to the registry."""
    trace = c.execute(sa.select(evaluation.c.trace).where(evaluation.c.key == evaluation_key)).scalar()
    _post(c, PROJECT, evaluation_key, {"evaluation": evaluation_key, "trace": trace}, now, now)


def due(c: sa.Connection, now: float, limit: int) -> Sequence[OutboxItem]:
    """The oldest items that are to be done now, but for messages: a channel that hangs must hold nothing else up."""
    return _due(c, now, limit, outbox.c.kind != NOTIFY)


def notices(c: sa.Connection, now: float, limit: int) -> Sequence[OutboxItem]:
    """The oldest messages that are to be sent now."""
    return _due(c, now, limit, outbox.c.kind == NOTIFY)


def notify(c: sa.Connection, subject: str, payload: Mapping[str, Any], now: float) -> None:
    """Asks for a message to be sent; once for a subject, for as long as what was done is kept."""
    told = sa.select(outbox.c.seq).where(outbox.c.kind == NOTIFY, outbox.c.subject == subject).limit(1)
    if c.execute(told).first() is None:
        _post(c, NOTIFY, subject, payload, now, now)


def _due(c: sa.Connection, now: float, limit: int, of: sa.ColumnElement[bool]) -> Sequence[OutboxItem]:
    rows = c.execute(
        sa.select(outbox.c.seq, outbox.c.kind, outbox.c.payload)
        .where(outbox.c.done_at.is_(None), outbox.c.not_before <= now, of)
        .order_by(outbox.c.seq)
        .limit(limit)
    )
    return [OutboxItem(row.seq, row.kind, row.payload) for row in rows]


def done(c: sa.Connection, seq: int, now: float) -> None:
    """Marks an item as done; a projection also on its evaluation."""
    row = c.execute(
        sa.update(outbox)
        .where(outbox.c.seq == seq, outbox.c.done_at.is_(None))
        .values(done_at=now, error=None)
        .returning(outbox.c.kind, outbox.c.subject)
    ).first()
    if row is not None and row.kind == PROJECT:
        c.execute(sa.update(evaluation).where(evaluation.c.key == row.subject).values(projected_at=now, updated_at=now))


def later(c: sa.Connection, seq: int, now: float, delay_s: float, error: str) -> None:
    """Puts an item off after a failure."""
    values = {"not_before": now + delay_s, "error": error, "failures": outbox.c.failures + 1}
    c.execute(sa.update(outbox).where(outbox.c.seq == seq, outbox.c.done_at.is_(None)).values(values))


def forget(c: sa.Connection, now: float) -> None:
    """Removes items done long ago."""
    c.execute(sa.delete(outbox).where(outbox.c.done_at < now - KEPT_S))


def outstanding(c: sa.Connection) -> Mapping[str, int]:
    """How many items of each kind are not done yet."""
    counts = sa.select(outbox.c.kind, sa.func.count()).where(outbox.c.done_at.is_(None)).group_by(outbox.c.kind)
    return {row[0]: row[1] for row in c.execute(counts)}


def outstanding_subjects(kind: str) -> sa.Select[Any]:
    """A query for what the outstanding items of a kind are about."""
    return sa.select(outbox.c.subject).where(outbox.c.kind == kind, outbox.c.done_at.is_(None))


def _post(c: sa.Connection, kind: str, subject: str, payload: Mapping[str, Any], now: float, due: float) -> None:
    # Replaced, not kept: an item that is being worked on at this moment must not swallow what is asked for now.
    c.execute(sa.delete(outbox).where(outbox.c.kind == kind, outbox.c.subject == subject, outbox.c.done_at.is_(None)))
    row = {"kind": kind, "subject": subject, "payload": payload, "not_before": due, "created_at": now, "failures": 0}
    insert_new(c, outbox, row)
