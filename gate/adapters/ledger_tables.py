"""The ledger's tables as SQLAlchemy Core sees them; ``migrations/`` makes them, and a test holds the two together."""

import sqlalchemy as sa

QUEUED, RUNNING, WAITING, DONE, FAILED = "queued", "running", "waiting", "done", "failed"
ENDED = (DONE, FAILED)

_UNCOUNTED = sa.text("counted IS NULL")
_ENDED_UNCOUNTED = sa.text("outcome IS NOT NULL AND counted IS NULL")
_OPEN = sa.text("outcome IS NULL")

metadata = sa.MetaData()

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("body_digest", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("request_key", sa.Text),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Index("delivery_by_content", "body_digest", "request_key"),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("waits_for", sa.Text),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("outages", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("queued_at", sa.Double, nullable=False),
    sa.Column("rung_at", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.Text),
    sa.Column("trace", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("awaited_at", sa.Double),
    sa.CheckConstraint("state IN ('waiting', 'queued', 'running', 'done', 'failed')", name="job_state_known"),
    sa.Index("job_by_state", "state", "lease_until"),
    sa.Index("job_by_dependency", "waits_for", "state"),
    sa.Index("job_by_queue", "queue", "state"),
)

# One row for each claim of a job, written when it begins and completed when it ends.
job_run = sa.Table(
    "job_run",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("queued_at", sa.Double, nullable=False),
    sa.Column("begun_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("outcome", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("awaited", sa.Boolean),
    sa.Column("counted", sa.Boolean),
    sa.Index("job_run_uncounted", "job", "epoch", sqlite_where=_UNCOUNTED, postgresql_where=_UNCOUNTED),
    sa.Index("job_run_by_begin", "queue", "begun_at"),
    sa.Index("job_run_by_end", "queue", "ended_at"),
)

evaluation = sa.Table(
    "evaluation",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("evidence_key", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("projected_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("dry_run", sa.Boolean),
    sa.Column("basin_position", sa.Double),
    sa.Column("base_digest", sa.Text),
    sa.Column("worst_change", sa.Double),
    sa.Column("trace", sa.Text),
    sa.Column("counted", sa.Boolean),
    sa.Column("base_name", sa.Text),
    sa.Column("suite_digest", sa.Text),
    # Of an evaluation that was opened again: the key of the version's first one under the policy, and how often it was.
    sa.Column("root", sa.Text),
    sa.Column("reopened", sa.Integer),
    sa.Index("evaluation_by_root", "root", "reopened"),
    sa.Index("evaluation_uncounted", "key", sqlite_where=_ENDED_UNCOUNTED, postgresql_where=_ENDED_UNCOUNTED),
    sa.Index("evaluation_open", "created_at", sqlite_where=_OPEN, postgresql_where=_OPEN),
    sa.Index("evaluation_by_time", "created_at"),
    sa.Index("evaluation_by_name", "name", "created_at"),
    sa.Index("evaluation_by_base", "base_digest", "created_at"),
)

evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False, server_default="1"),
    sa.Column("saved_by", sa.Text, nullable=False),
    sa.Column("saved_at", sa.Double, nullable=False),
)

# Texts for people, under the key of the evidence that holds their digest.
prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False, server_default="1"),
)

profile = sa.Table(
    "profile",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False, server_default="1"),
    sa.Column("saved_at", sa.Double, nullable=False),
)

verdict = sa.Table(
    "verdict",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False, server_default="1"),
    sa.Column("envelope", sa.Text, nullable=False),
    sa.Column("saved_at", sa.Double, nullable=False),
)

# What became of planted candidates; they are no evaluations and are counted by themselves.
control = sa.Table(
    "control",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("base", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("control", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

base = sa.Table(
    "base",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False, server_default="1"),
    sa.Column("saved_at", sa.Double, nullable=False),
)

promotion = sa.Table(
    "promotion",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("saved_at", sa.Double, nullable=False),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("done_at", sa.Double),
    # At most one outstanding item for a thing: asking twice is asking once.
    sa.Index(
        "outbox_outstanding",
        "kind",
        "subject",
        unique=True,
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    ),
    sa.Index("outbox_by_end", "done_at"),
    sqlite_autoincrement=True,
)

# What was last seen of something that the ledger does not hold: the newest value of each name.
figure = sa.Table(
    "figure",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Double),
    sa.Column("at", sa.Double, nullable=False),
)

# What ended runs and evaluations add up to, those marked as counted: one row for each number that metrics tell.
tally = sa.Table(
    "tally",
    metadata,
    sa.Column("series", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
)

revocation = sa.Table(
    "revocation",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("candidate_digest", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("revoked_at", sa.Integer, nullable=False),
    sa.Column("envelope", sa.Text, nullable=False),
    sa.Index("revocation_by_candidate", "candidate_digest"),
)

# A person's decision on one verdict (by its digest), and once it is signed the verdict that stands in the place of that one,
# which never changes.
review = sa.Table(
    "review",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("judged", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("asked_at", sa.Double, nullable=False),
    sa.Column("verdict", sa.Text),
    sa.Column("schema", sa.Integer),
    sa.Column("envelope", sa.Text),
    sa.Column("signed_at", sa.Double),
    sa.Index("review_of_verdict", "key", "judged", unique=True),
    sqlite_autoincrement=True,
)

waiver = sa.Table(
    "waiver",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("candidate_digest", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("critical", sa.Boolean, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Integer, nullable=False),
    sa.Column("changed_at", sa.Double, nullable=False),
    sa.Column("envelope", sa.Text),
    sa.Column("ended_because", sa.Text),
    sa.Index("waiver_by_candidate", "candidate_digest"),
    sa.Index("waiver_by_state", "state", "expires_at"),
)

# Verdicts on evidence that was judged again; of each evaluation the newest counts.
rejudged = sa.Table(
    "rejudged",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("schema", sa.Integer, nullable=False),
    sa.Column("envelope", sa.Text, nullable=False),
    sa.Column("saved_at", sa.Double, nullable=False),
    sa.Index("rejudged_by_key", "key", "seq"),
    sqlite_autoincrement=True,
)

# An approval against the findings, from who broke the glass to who reviewed that; while it has not ended, it counts.
broken_glass = sa.Table(
    "broken_glass",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("candidate_digest", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Integer, nullable=False),
    sa.Column("review_by", sa.Integer, nullable=False),
    sa.Column("verdict", sa.Text),
    sa.Column("schema", sa.Integer),
    sa.Column("envelope", sa.Text),
    sa.Column("signed_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("review", sa.Text),
    sa.Index("broken_glass_by_key", "key", "seq"),
    sa.Index("broken_glass_by_candidate", "candidate_digest"),
    sqlite_autoincrement=True,
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Index("audit_by_event", "event", "seq"),
    sqlite_autoincrement=True,
)

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)
