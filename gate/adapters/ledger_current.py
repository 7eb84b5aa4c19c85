"""Which verdict of an evaluation counts: while a broken glass is in force, the approval that it gave; else the one a person's
review made or the newest judging again, whichever came later; the first judging where there was neither. All of them stay."""

from typing import Any

import sqlalchemy as sa

from gate.adapters.ledger_tables import broken_glass, rejudged, review, verdict

_NEWEST = sa.select(sa.func.max(rejudged.c.seq)).where(rejudged.c.key == verdict.c.key).correlate(verdict)
_SIGNED = review.c.key == verdict.c.key, review.c.envelope.is_not(None)
_REVIEWED = sa.select(sa.func.max(review.c.seq)).where(*_SIGNED).correlate(verdict)
_REVIEW_COUNTS = sa.and_(
    review.c.seq.is_not(None), sa.or_(rejudged.c.seq.is_(None), review.c.signed_at >= rejudged.c.saved_at)
)
_IN_FORCE = broken_glass.c.key == verdict.c.key, broken_glass.c.envelope.is_not(None), broken_glass.c.ended_at.is_(None)
_GLASS = sa.select(sa.func.max(broken_glass.c.seq)).where(*_IN_FORCE).correlate(verdict)


def with_later(joined: sa.FromClause) -> sa.Join:
    """A join that has ``verdict`` in it, with what came after the first judging."""
    reviewed = joined.outerjoin(review, review.c.seq == _REVIEWED.scalar_subquery())
    again = reviewed.outerjoin(rejudged, rejudged.c.seq == _NEWEST.scalar_subquery())
    return again.outerjoin(broken_glass, broken_glass.c.seq == _GLASS.scalar_subquery())


def judged(name: str) -> sa.ColumnElement[Any]:
    """A column (``body``, ``schema``, ``envelope``) of the verdict that counts but for a broken glass."""
    of_review = review.c["verdict" if name == "body" else name]
    return sa.case((_REVIEW_COUNTS, of_review), else_=sa.func.coalesce(rejudged.c[name], verdict.c[name]))


def current(name: str) -> sa.Label[Any]:
    """A column (``body``, ``schema``, ``envelope``) of the verdict that counts."""
    of_glass = broken_glass.c["verdict" if name == "body" else name]
    return sa.case((broken_glass.c.seq.is_not(None), of_glass), else_=judged(name)).label(name)
