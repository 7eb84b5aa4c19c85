"""Which version last held a protected alias with an approval: what an alias moved around the gate goes back to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "promotion",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("alias", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("saved_at", sa.Double, nullable=False),
    )
