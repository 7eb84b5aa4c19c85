"""Which verdict of an evaluation counts: the one a person's review made or the newest judging again, whichever came
later; the first judging where there was neither. All of them stay."""

from typing import Any

import sqlalchemy as sa

from gate.adapters.ledger_tables import rejudged, review, verdict

_NEWEST = sa.select(sa.func.max(rejudged.c.seq)).where(rejudged.c.key == verdict.c.key).correlate(verdict)
_REVIEW_COUNTS = sa.and_(
    review.c.envelope.is_not(None), sa.or_(rejudged.c.seq.is_(None), review.c.signed_at >= rejudged.c.saved_at)
)


def with_later(joined: sa.FromClause) -> sa.Join:
    """A join that has ``verdict`` in it, with what came after the first judging."""
    reviewed = joined.outerjoin(review, review.c.key == verdict.c.key)
    return reviewed.outerjoin(rejudged, rejudged.c.seq == _NEWEST.scalar_subquery())


def current(name: str) -> sa.Label[Any]:
    """A column (``body``, ``schema``, ``envelope``) of the verdict that counts."""
    of_review = review.c["verdict" if name == "body" else name]
    judged = sa.func.coalesce(rejudged.c[name], verdict.c[name])
    return sa.case((_REVIEW_COUNTS, of_review), else_=judged).label(name)
