"""Approvals taken back: one row for each version, written once; what it makes of the evaluations that it concerns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_outbox, ledger_tallies
from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import broken_glass, evaluation, revocation, verdict
from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.records import SignedRevocation
from gate.domain.revocation import Revocation
from gate.domain.verdict import Outcome, Verdict


def revoke(c: sa.Connection, given: Sequence[SignedRevocation], actor: str, now: float) -> int:
    """Keeps each revocation for ever (the first of a version stands) and has what it concerns written again."""
    new = [each for each in given if _keep(c, each)]
    for each in new:
        _void(c, each, now)
    for each in new:
        entry = each.revocation
        detail = {"subject": entry.subject, "candidate": entry.candidate_digest, "reason": entry.reason}
        ledger_audit.append(c, "approval revoked", actor, detail, now)
    return len(new)


def revocation_of(
    c: sa.Connection, subject: str, candidate_digest: str | None
) -> tuple[Revocation, Mapping[str, Any]] | None:
    """The revocation of a version, or of its bytes, with its signed envelope."""
    same = revocation.c.subject == subject
    if candidate_digest is not None:
        same = sa.or_(same, revocation.c.candidate_digest == candidate_digest)
    # The version's own comes first: its envelope names it.
    order = sa.case((revocation.c.subject == subject, 0), else_=1)
    row = c.execute(sa.select(revocation).where(same).order_by(order, revocation.c.revoked_at).limit(1)).first()
    return None if row is None else (_entry(row), json.loads(row.envelope))


def revocations(c: sa.Connection) -> Sequence[Revocation]:
    """Every revocation, by version."""
    return [_entry(row) for row in c.execute(sa.select(revocation).order_by(revocation.c.subject))]


def versions_of(c: sa.Connection, candidate_digest: str) -> Sequence[ModelVersion]:
    """The versions with a verdict on exactly these bytes."""
    # The text is searched before it is parsed: of many verdicts few are about these bytes.
    query = sa.select(verdict.c.body, evaluation.c.request).join(evaluation, evaluation.c.key == verdict.c.key)
    rows = c.execute(query.where(verdict.c.body.contains(candidate_digest))).all()
    found = {
        request.version.identity: request.version
        for row in rows
        if Verdict.model_validate_json(row.body).candidate_digest == candidate_digest
        for request in [EvaluationRequest.model_validate_json(row.request)]
    }
    return list(found.values())


def _keep(c: sa.Connection, given: SignedRevocation) -> bool:
    entry = given.revocation
    row = {
        "subject": entry.subject,
        "candidate_digest": entry.candidate_digest,
        "reason": entry.reason,
        "revoked_at": entry.revoked_at,
        "envelope": json.dumps(dict(given.envelope)),
    }
    return insert_new(c, revocation, row)


def _void(c: sa.Connection, given: SignedRevocation, now: float) -> None:
    """The version's ended evaluations count as blocked from now on, wherever they are listed."""
    entry = given.revocation
    values = {"outcome": Outcome.BLOCKED.value, "reason": entry.verdict, "updated_at": now}
    ended = evaluation.c.name == given.version.name, evaluation.c.outcome.is_not(None)
    for row in c.execute(sa.select(evaluation.c.key, evaluation.c.request).where(*ended)).all():
        if EvaluationRequest.model_validate_json(row.request).version.identity == entry.subject:
            # Verdicts given are counted as they were given; a count never goes down.
            ledger_tallies.count_evaluation(c, row.key)
            open_ = broken_glass.c.key == row.key, broken_glass.c.ended_at.is_(None)
            c.execute(sa.update(broken_glass).where(*open_).values(ended_at=now))
            c.execute(sa.update(evaluation).where(evaluation.c.key == row.key).values(values))
            ledger_outbox.project(c, row.key, now)


def _entry(row: sa.Row[Any]) -> Revocation:
    return Revocation(
        subject=row.subject,
        candidate_digest=row.candidate_digest,
        reason=row.reason,
        revoked_at=row.revoked_at,
    )
