"""Whose turn it is: the registered model that a job is for, and when somebody last waited for it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("job", sa.Column("model", sa.Text, nullable=True))
    op.add_column("job", sa.Column("awaited_at", sa.Double, nullable=True))
    op.add_column("job_run", sa.Column("model", sa.Text, nullable=True))
    op.add_column("job_run", sa.Column("awaited", sa.Boolean, nullable=True))
    op.create_index("job_run_by_begin", "job_run", ["queue", "begun_at"])
    op.create_index("job_run_by_end", "job_run", ["queue", "ended_at"])
