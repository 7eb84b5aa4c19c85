"""The schema that each kept document was written in: all that are there were written in the first."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = ("evidence", "profile", "verdict", "base", "prompts")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("schema", sa.Integer, nullable=False, server_default="1"))
