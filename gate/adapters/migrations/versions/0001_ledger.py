"""The first ledger: deliveries, jobs, evaluations, evidence, profiles, verdicts, bases, outbox, audit, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

UNCHANGING = ("verdict", "audit")


def upgrade() -> None:
    _inbox_and_jobs()
    _evaluations_and_findings()
    _outbox_and_audit()
    for table in UNCHANGING:
        _refuse_changes(table)


def _text(name: str, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, primary_key=primary_key)


def _time(name: str, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _json(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=nullable)


def _inbox_and_jobs() -> None:
    op.create_table(
        "delivery",
        _text("id", primary_key=True),
        _text("body_digest"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _text("request_key", nullable=True),
        _time("received_at"),
    )
    op.create_index("delivery_by_content", "delivery", ["body_digest", "request_key"])
    op.create_table(
        "job",
        _text("key", primary_key=True),
        _text("kind"),
        _text("queue"),
        _json("payload"),
        _text("state"),
        _text("waits_for", nullable=True),
        _count("epoch"),
        _count("attempts"),
        _count("outages"),
        _text("owner", nullable=True),
        _time("lease_until", nullable=True),
        _time("not_before"),
        _time("queued_at"),
        _time("rung_at"),
        _time("created_at"),
        _time("ended_at", nullable=True),
        _json("progress", nullable=True),
        _json("result", nullable=True),
        _text("error", nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'queued', 'running', 'done', 'failed')", name="job_state_known"),
    )
    op.create_index("job_by_state", "job", ["state", "lease_until"])
    op.create_index("job_by_dependency", "job", ["waits_for", "state"])


def _evaluations_and_findings() -> None:
    op.create_table(
        "evaluation",
        _text("key", primary_key=True),
        _text("name"),
        _text("request"),
        _text("evidence_key", nullable=True),
        _text("run_id", nullable=True),
        _text("outcome", nullable=True),
        _text("reason", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        _time("projected_at", nullable=True),
    )
    op.create_index("evaluation_by_time", "evaluation", ["created_at"])
    op.create_index("evaluation_by_name", "evaluation", ["name", "created_at"])
    op.create_table("evidence", _text("key", primary_key=True), _text("body"), _text("saved_by"), _time("saved_at"))
    op.create_table("profile", _text("key", primary_key=True), _text("body"), _time("saved_at"))
    op.create_table("verdict", _text("key", primary_key=True), _text("body"), _text("envelope"), _time("saved_at"))
    op.create_table("base", _text("name", primary_key=True), _text("body"), _time("saved_at"))


def _outbox_and_audit() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.Integer, primary_key=True),
        _text("kind"),
        _text("subject"),
        _json("payload"),
        _time("not_before"),
        _time("created_at"),
        _count("failures"),
        _text("error", nullable=True),
        _time("done_at", nullable=True),
        sqlite_autoincrement=True,
    )
    outstanding = sa.text("done_at IS NULL")
    op.create_index(
        "outbox_outstanding",
        "outbox",
        ["kind", "subject"],
        unique=True,
        sqlite_where=outstanding,
        postgresql_where=outstanding,
    )
    op.create_index("outbox_by_end", "outbox", ["done_at"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True),
        _time("at"),
        _text("event"),
        _text("actor"),
        _text("detail"),
        _text("previous"),
        _text("hash"),
        sqlite_autoincrement=True,
    )
    op.create_table("lease", _text("name", primary_key=True), _text("owner"), _time("until"))


def _refuse_changes(table: str) -> None:
    """Rows of this table are written once: the database itself refuses to change or remove them."""
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} never change'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_never_changes() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'rows of {table} never change'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_never_changes()"
    )
