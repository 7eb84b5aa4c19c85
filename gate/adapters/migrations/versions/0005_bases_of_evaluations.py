"""What lists of fine-tunes show without opening each verdict: its base, and the largest loss among its capabilities."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_PAGE = 500


def upgrade() -> None:
    op.add_column("evaluation", sa.Column("base_digest", sa.Text, nullable=True))
    op.add_column("evaluation", sa.Column("worst_change", sa.Double, nullable=True))
    op.create_index("evaluation_by_base", "evaluation", ["base_digest", "created_at"])
    _fill()


def _fill() -> None:
    """Takes both from the verdicts that are there already, a page at a time."""
    connection, last = op.get_bind(), ""
    page = sa.text("SELECT key, body FROM verdict WHERE key > :last ORDER BY key LIMIT :page")
    put = sa.text("UPDATE evaluation SET base_digest = :base, worst_change = :change WHERE key = :key")
    while rows := connection.execute(page, {"last": last, "page": _PAGE}).all():
        for key, body in rows:
            verdict = json.loads(body)
            changes = [
                finding["estimate"]["value"]
                for finding in verdict["findings"]
                if finding["measurement"] == "retention" and finding["estimate"]
            ]
            given = {"base": verdict["base_digest"], "change": min(changes, default=None), "key": key}
            connection.execute(put, given)
            last = key
