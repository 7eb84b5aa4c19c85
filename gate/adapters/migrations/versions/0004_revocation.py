"""Approvals taken back: rows that are written once and never change."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "revocation",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("candidate_digest", sa.Text, nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.Integer, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
    )
    op.create_index("revocation_by_candidate", "revocation", ["candidate_digest"])
    _refuse_changes()


def _refuse_changes() -> None:
    """The database itself refuses to give an approval back."""
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER revocation_no_{act.lower()} BEFORE {act} ON revocation "
                "BEGIN SELECT RAISE(ABORT, 'rows of revocation never change'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION revocation_never_changes() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of revocation never change'; END $$"
    )
    op.execute(
        "CREATE TRIGGER revocation_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON revocation "
        "FOR EACH STATEMENT EXECUTE FUNCTION revocation_never_changes()"
    )
