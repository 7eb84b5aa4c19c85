"""What became of the planted candidates by which the gate is checked."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "control",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("control", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
