"""Reviews by people: asked for once, signed by a worker; the verdict that came of one goes before the judged one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_documents, ledger_evaluations, ledger_jobs, ledger_records
from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import evaluation, evidence, job, review, verdict
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.evidence import extended_evidence_key
from gate.domain.jobs import (
    CPU_QUEUE,
    EXTEND,
    GPU_QUEUE,
    REJUDGE,
    REVIEW,
    extend_key,
    extended_judge_key,
    review_key,
)
from gate.domain.records import JobRequest
from gate.domain.verdict import Review, ReviewDecision, Verdict


def ask(c: sa.Connection, key: str, value: Review, now: float) -> None:
    """Keeps a review and has it signed, or more samples compared. The first of a verdict stands; the same one again asks
    again."""
    if c.execute(sa.select(verdict.c.key).where(verdict.c.key == key)).first() is None:
        raise NotFound(f"expected a verdict on evaluation {key}, found none to review")
    ledger_evaluations.refuse_reopened(c, key)
    digest = value.verdict_digest
    new = insert_new(c, review, {"key": key, "judged": digest, "body": value.model_dump_json(), "asked_at": now})
    if not new:
        _refuse_another(asked(c, key, digest), value)
    if value.decision is ReviewDecision.MORE_SAMPLES:
        _have_compared(c, key, digest, now)
    else:
        payload = {"evaluation": key, "verdict": digest}
        ledger_jobs.enqueue(c, [JobRequest(review_key(key, digest), REVIEW, CPU_QUEUE, payload)], now)
    if new:
        detail: dict[str, Any] = {
            "evaluation": key,
            "decision": value.decision,
            "reason": value.reason,
            "verdict": digest,
        }
        if value.items is not None:
            detail["items"] = value.items
        ledger_audit.append(c, "verdict reviewed", value.reviewer, detail, now)


def asked(c: sa.Connection, key: str, judged: str) -> Review | None:
    """The review of an evaluation's verdict with that digest, signed or about to be."""
    body = c.execute(sa.select(review.c.body).where(review.c.key == key, review.c.judged == judged)).scalar()
    return None if body is None else ledger_documents.read_document(Review, key, body)


def all_of(c: sa.Connection, key: str) -> Sequence[Review]:
    """Every review of an evaluation's verdicts, the newest first."""
    query = sa.select(review.c.body).where(review.c.key == key).order_by(review.c.seq.desc())
    return [ledger_documents.read_document(Review, key, body) for body in c.execute(query).scalars()]


def save(c: sa.Connection, key: str, value: Verdict, envelope: Mapping[str, Any], now: float) -> None:
    """Keeps the verdict that came of a review, once; it counts from now on, and the judged one stays as it is."""
    of = value.review.verdict_digest if value.review else ""
    unsigned = review.c.key == key, review.c.judged == of, review.c.signed_at.is_(None)
    written = {"verdict": value.model_dump_json(), "schema": ledger_documents.DOCUMENT_SCHEMA}
    signed = sa.update(review).where(*unsigned).values(**written, envelope=json.dumps(dict(envelope)), signed_at=now)
    if c.execute(signed).rowcount != 1:
        return
    ledger_records.show_current(c, key, now)
    detail = {"evaluation": key, "subject": value.subject, "outcome": value.outcome, "verdict": value.digest}
    ledger_audit.append(c, "verdict", "review", detail, now)


def _have_compared(c: sa.Connection, key: str, digest: str, now: float) -> None:
    """Has more samples compared where the evidence was measured, ahead of what nobody waits for, and judged then."""
    asked_of = sa.select(evaluation.c.name, evaluation.c.evidence_key).where(evaluation.c.key == key)
    row = c.execute(asked_of).one()
    measured_by = sa.select(job.c.queue).join(evidence, evidence.c.saved_by == job.c.key)
    queue = c.execute(measured_by.where(evidence.c.key == row.evidence_key)).scalar() or GPU_QUEUE
    payload = {"evaluation": key, "verdict": digest}
    extend = JobRequest(extend_key(key, digest), EXTEND, queue, {**payload, "evidence": row.evidence_key})
    extended = {"extended": extended_evidence_key(row.evidence_key, digest)}
    # It waits for the other however that ends: the verdict that says so can be decided on again.
    again = JobRequest(extended_judge_key(key, digest), REJUDGE, CPU_QUEUE, payload | extended, waits_for=extend.key)
    ledger_jobs.enqueue(c, [extend, again], now, model=row.name)
    c.execute(sa.update(job).where(job.c.key == extend.key).values(awaited_at=now))


def _refuse_another(before: Review | None, value: Review) -> None:
    stated = (value.reviewer, value.decision, value.items)
    if before is None or (before.reviewer, before.decision, before.items) != stated:
        by = before.reviewer if before else "somebody"
        raise InvalidInput(f"expected a verdict that nobody decided on, found it decided by {by}; see its report")
