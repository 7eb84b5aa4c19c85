"""The trace that an evaluation and a job belong to; what has been counted, kept so that nobody counts it again."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for table in ("evaluation", "job"):
        op.add_column(table, sa.Column("trace", sa.Text, nullable=True))
    for table in ("evaluation", "job_run"):
        op.add_column(table, sa.Column("counted", sa.Boolean, nullable=True))
    op.create_table(
        "tally",
        sa.Column("series", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("cell", sa.Text, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
    )
    uncounted, ended = sa.text("counted IS NULL"), sa.text("outcome IS NOT NULL AND counted IS NULL")
    still_open = sa.text("outcome IS NULL")
    for name, table, columns, where in (
        ("job_run_uncounted", "job_run", ["job", "epoch"], uncounted),
        ("evaluation_uncounted", "evaluation", ["key"], ended),
        ("evaluation_open", "evaluation", ["created_at"], still_open),
    ):
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
    op.create_index("job_by_queue", "job", ["queue", "state"])
    op.create_index("audit_by_event", "audit", ["event", "seq"])
