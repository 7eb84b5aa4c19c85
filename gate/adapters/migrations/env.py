"""Runs the ledger's migrations on the connection it is given, all in that connection's transaction.

No revision has a way back: a ledger holds verdicts and is never taken apart.
"""

from alembic import context

from gate.adapters.ledger_tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll back DDL once BEGIN is ours to say, which gate.adapters.database sees to.
    transactional_ddl=True,
)
context.run_migrations()
