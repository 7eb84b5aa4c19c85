"""The record of who did what: each entry's hash covers the one before, so a changed or missing entry shows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters.ledger_tables import audit
from gate.domain.evidence import canonical_json
from gate.domain.records import AuditEntry

BEGINNING = "0" * 64
CHAIN_LOCK = 7_620_115

FAILED_OPEN = "rule failed open"
"""A rule let a version through that was not measured for it, as its policy says."""


def append(c: sa.Connection, event: str, actor: str, detail: Mapping[str, Any], now: float) -> None:
    """Adds an entry. Do it last in a transaction: on PostgreSQL it waits for all other appenders to commit."""
    if c.dialect.name == "postgresql":
        c.execute(sa.select(sa.func.pg_advisory_xact_lock(CHAIN_LOCK)))
    last = c.execute(sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    seq, previous = (last.seq + 1, last.hash) if last else (1, BEGINNING)
    text = canonical_json(detail).decode()
    entry = {"seq": seq, "at": now, "event": event, "actor": actor, "detail": text, "previous": previous}
    c.execute(sa.insert(audit).values(entry | {"hash": _hash(entry)}))


def first_break(c: sa.Connection) -> int | None:
    """The number of the first entry that does not fit its chain; ``None`` when all do."""
    expected_seq, previous = 1, BEGINNING
    for row in c.execute(sa.select(audit).order_by(audit.c.seq)).mappings():
        entry = {name: row[name] for name in ("seq", "at", "event", "actor", "detail", "previous")}
        if (row["seq"], row["previous"]) != (expected_seq, previous) or row["hash"] != _hash(entry):
            return expected_seq
        expected_seq, previous = expected_seq + 1, row["hash"]
    return None


def entries(c: sa.Connection, after: int, limit: int) -> Sequence[AuditEntry]:
    """The next entries after a number, oldest first."""
    wanted = sa.select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    return [AuditEntry(**row) for row in c.execute(wanted).mappings()]


def _hash(entry: Mapping[str, Any]) -> str:
    # JSON of a list fixes the order; a float's shortest form survives both databases unchanged.
    fields = [entry["previous"], entry["seq"], float(entry["at"]), entry["event"], entry["actor"], entry["detail"]]
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()
