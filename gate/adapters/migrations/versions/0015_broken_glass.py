"""Approvals that somebody gave against the findings, for hours, and what others said of that afterwards."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "broken_glass",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("candidate_digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("review_by", sa.Integer, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("schema", sa.Integer),
        sa.Column("envelope", sa.Text),
        sa.Column("signed_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("review", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("broken_glass_by_key", "broken_glass", ["key", "seq"])
    op.create_index("broken_glass_by_candidate", "broken_glass", ["candidate_digest"])
