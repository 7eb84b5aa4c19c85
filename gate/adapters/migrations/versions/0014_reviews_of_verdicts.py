"""Reviews are of a verdict, not of an evaluation: one that was judged again can be reviewed again."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    before = op.get_bind().execute(sa.text("SELECT * FROM review ORDER BY asked_at, key")).mappings().all()
    op.drop_table("review")
    table = op.create_table(
        "review",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("judged", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("schema", sa.Integer),
        sa.Column("envelope", sa.Text),
        sa.Column("signed_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("review_of_verdict", "review", ["key", "judged"], unique=True)
    rows = [{**row, "judged": json.loads(row["body"])["verdict_digest"]} for row in before]
    if rows:
        op.bulk_insert(table, rows)
