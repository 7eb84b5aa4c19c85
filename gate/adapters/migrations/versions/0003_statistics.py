"""What the metrics are computed from: each run of a job, when evaluations ended, what the reconciler last saw."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "job_run",
        sa.Column("job", sa.Text, primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("queued_at", sa.Double, nullable=False),
        sa.Column("begun_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=True),
        sa.Column("outcome", sa.Text, nullable=True),
    )
    op.create_table(
        "figure",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Double, nullable=True),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.add_column("evaluation", sa.Column("ended_at", sa.Double, nullable=True))
    op.add_column("evaluation", sa.Column("dry_run", sa.Boolean, nullable=True))
    op.add_column("evaluation", sa.Column("basin_position", sa.Double, nullable=True))
    # What ended before this version: when its verdict was kept, or else when it was last touched.
    op.execute(
        "UPDATE evaluation SET ended_at = coalesce("
        "(SELECT saved_at FROM verdict WHERE verdict.key = evaluation.key), updated_at) WHERE outcome IS NOT NULL"
    )
