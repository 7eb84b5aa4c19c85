"""Waivers, and verdicts as they were before they were judged again."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "waiver",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("candidate_digest", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("critical", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("envelope", sa.Text),
        sa.Column("ended_because", sa.Text),
    )
    op.create_index("waiver_by_candidate", "waiver", ["candidate_digest"])
    op.create_index("waiver_by_state", "waiver", ["state", "expires_at"])
    op.create_table(
        "replaced_verdict",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("replaced_at", sa.Double, nullable=False),
    )
