"""Verdicts opened again: what each was measured against, and which evaluation took the place of which."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_PAGE = 500


def upgrade() -> None:
    for name, kind in (("base_name", sa.Text), ("suite_digest", sa.Text), ("root", sa.Text), ("reopened", sa.Integer)):
        op.add_column("evaluation", sa.Column(name, kind, nullable=True))
    op.create_index("evaluation_by_root", "evaluation", ["root", "reopened"])
    _fill()


def _fill() -> None:
    """Takes base and suite from the evidence that is there already, a page at a time."""
    connection, last = op.get_bind(), ""
    page = sa.text(
        "SELECT evaluation.key, evidence.body FROM evaluation JOIN evidence ON evidence.key = evaluation.evidence_key "
        "WHERE evaluation.key > :last ORDER BY evaluation.key LIMIT :page"
    )
    put = sa.text("UPDATE evaluation SET base_name = :base, suite_digest = :suite WHERE key = :key")
    while rows := connection.execute(page, {"last": last, "page": _PAGE}).all():
        for key, body in rows:
            found = json.loads(body)
            given = {"base": found.get("base_name"), "suite": found.get("suite_digest"), "key": key}
            connection.execute(put, given)
            last = key
