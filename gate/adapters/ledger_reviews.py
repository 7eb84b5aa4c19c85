"""Reviews by people: asked for once, signed by a worker; the verdict that came of one goes before the judged one."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_documents, ledger_jobs, ledger_outbox, ledger_tallies
from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import evaluation, review, verdict
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.jobs import CPU_QUEUE, REVIEW, review_key
from gate.domain.verdict import Review, Verdict
from gate.ports import JobRequest


def ask(c: sa.Connection, key: str, value: Review, now: float) -> None:
    """Keeps a review and has it signed. The first of an evaluation stands; the same one again asks again."""
    if c.execute(sa.select(verdict.c.key).where(verdict.c.key == key)).first() is None:
        raise NotFound(f"expected a verdict on evaluation {key}, found none to review")
    new = insert_new(c, review, {"key": key, "body": value.model_dump_json(), "asked_at": now})
    if not new:
        _refuse_another(asked(c, key), value)
    ledger_jobs.enqueue(c, [JobRequest(review_key(key), REVIEW, CPU_QUEUE, {"evaluation": key})], now)
    if new:
        detail = {
            "evaluation": key,
            "decision": value.decision,
            "reason": value.reason,
            "verdict": value.verdict_digest,
        }
        ledger_audit.append(c, "verdict reviewed", value.reviewer, detail, now)


def asked(c: sa.Connection, key: str) -> Review | None:
    """The review of an evaluation, signed or about to be."""
    body = c.execute(sa.select(review.c.body).where(review.c.key == key)).scalar()
    return None if body is None else ledger_documents.read_document(Review, key, body)


def save(c: sa.Connection, key: str, value: Verdict, envelope: Mapping[str, Any], now: float) -> None:
    """Keeps the verdict that came of a review, once; it counts from now on, and the judged one stays as it is."""
    unsigned = review.c.key == key, review.c.signed_at.is_(None)
    written = {"verdict": value.model_dump_json(), "schema": ledger_documents.DOCUMENT_SCHEMA}
    signed = sa.update(review).where(*unsigned).values(**written, envelope=json.dumps(dict(envelope)), signed_at=now)
    if c.execute(signed).rowcount != 1:
        return
    # Verdicts given are counted as they were given; a count never goes down.
    ledger_tallies.count_evaluation(c, key)
    ended = {"outcome": value.outcome.value, "reason": value.reason, "updated_at": now}
    c.execute(sa.update(evaluation).where(evaluation.c.key == key).values(ended))
    ledger_outbox.project(c, key, now)
    detail = {"evaluation": key, "subject": value.subject, "outcome": value.outcome, "verdict": value.digest}
    ledger_audit.append(c, "verdict", "review", detail, now)


def _refuse_another(before: Review | None, value: Review) -> None:
    if before is None or (before.reviewer, before.decision) != (value.reviewer, value.decision):
        by = before.reviewer if before else "somebody"
        raise InvalidInput(f"expected a verdict that nobody decided on, found it decided by {by}; see its report")
