"""Verdicts on evidence that was judged again: added, never put in the place of another."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.drop_table("replaced_verdict")
    op.create_table(
        "rejudged",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("schema", sa.Integer, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("saved_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("rejudged_by_key", "rejudged", ["key", "seq"])
    _refuse_changes()


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER rejudged_no_{act.lower()} BEFORE {act} ON rejudged "
                "BEGIN SELECT RAISE(ABORT, 'rows of rejudged never change'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION rejudged_never_changes() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of rejudged never change'; END $$"
    )
    op.execute(
        "CREATE TRIGGER rejudged_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON rejudged "
        "FOR EACH STATEMENT EXECUTE FUNCTION rejudged_never_changes()"
    )
