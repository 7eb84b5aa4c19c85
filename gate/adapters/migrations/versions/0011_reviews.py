"""What people decided about verdicts that need review, and the verdicts that came of it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "review",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("schema", sa.Integer),
        sa.Column("envelope", sa.Text),
        sa.Column("signed_at", sa.Double),
    )
