"""What was once judged, with the evidence it was judged on: for replaying policies."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import sqlalchemy as sa

from gate.adapters.database import Database
from gate.adapters.ledger_current import with_later
from gate.adapters.ledger_documents import read_document
from gate.adapters.ledger_tables import evaluation, evidence, rejudged, verdict
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Evidence
from gate.domain.rehearsal import Judged
from gate.domain.verdict import Verdict

PAGE = 200
"""Rows held at a time: a year of evidence does not fit into memory, and a long read keeps PostgreSQL from cleaning up."""


def judged_since(database: Database, since: float, name: str | None) -> Iterator[Judged]:
    """Versions that have a verdict and were asked for at or after a time, newest first; of each the newest verdict.

    The verdict is as it was given, whatever was revoked since: the first one, or where more samples were compared after it, the
    one on those. Each page is a snapshot of its own; what is asked for
    meanwhile is newer than the first page and so is not met.
    """
    return _newest_of_each(_rows(database, _wanted(since, name)))


def _wanted(since: float, name: str | None) -> sa.Select[Any]:
    columns = (evaluation.c.key, evaluation.c.created_at, evaluation.c.request)
    again = rejudged.c.body.label("again"), rejudged.c.schema.label("again_schema")
    joined = evaluation.join(verdict, verdict.c.key == evaluation.c.key).join(
        evidence, evidence.c.key == evaluation.c.evidence_key
    )
    wanted = (
        sa.select(*columns, *_both("evidence", evidence), *_both("verdict", verdict), *again)
        .select_from(with_later(joined))
        .where(evaluation.c.created_at >= since)
        .order_by(evaluation.c.created_at.desc(), evaluation.c.key)
    )
    return wanted if name is None else wanted.where(evaluation.c.name == name)


def _both(name: str, table: sa.Table) -> tuple[sa.Label[Any], sa.Label[Any]]:
    return table.c.body.label(name), table.c.schema.label(f"{name}_schema")


def _rows(database: Database, wanted: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    page = database.read(partial(_page, wanted=wanted))
    while page:
        yield from page
        at, key = page[-1].created_at, page[-1].key
        older = sa.or_(evaluation.c.created_at < at, sa.and_(evaluation.c.created_at == at, evaluation.c.key > key))
        page = database.read(partial(_page, wanted=wanted.where(older)))


def _page(c: sa.Connection, wanted: sa.Select[Any]) -> list[sa.Row[Any]]:
    return list(c.execute(wanted.limit(PAGE)))


def _newest_of_each(rows: Iterable[sa.Row[Any]]) -> Iterator[Judged]:
    seen: set[str] = set()
    for row in rows:
        version = read_document(EvaluationRequest, row.key, row.request).version
        if version.identity not in seen:
            seen.add(version.identity)
            found = read_document(Evidence, row.key, row.evidence, row.evidence_schema)
            yield Judged(version, found, _verdict_on(found, row), row.key)


def _verdict_on(found: Evidence, row: sa.Row[Any]) -> Verdict:
    """The first verdict that was given on this evidence, or the newest where the first was on less."""
    first = read_document(Verdict, row.key, row.verdict, row.verdict_schema)
    if row.again is None or first.evidence_key == found.key:
        return first
    return read_document(Verdict, row.key, row.again, row.again_schema)
