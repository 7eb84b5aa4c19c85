"""Broken glasses: asked for by a person, signed by a worker, in force until their time is over; each has to be reviewed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_documents, ledger_evaluations, ledger_jobs, ledger_records
from gate.adapters.ledger_tables import broken_glass as glass
from gate.adapters.ledger_tables import evaluation
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.evaluation import EvaluationRequest
from gate.domain.glass import BrokenGlass
from gate.domain.jobs import CPU_QUEUE, GLASS, glass_key
from gate.domain.records import JobRequest, KeptGlass
from gate.domain.verdict import Review, ReviewDecision, Verdict

IN_FORCE, UNREVIEWED, OVERDUE = "in_force", "unreviewed", "overdue"
STATES = (IN_FORCE, UNREVIEWED, OVERDUE)
_UNDECIDED = (glass.c.review.is_(None), sa.or_(glass.c.signed_at.is_not(None), glass.c.ended_at.is_(None)))


def ask(c: sa.Connection, key: str, candidate_digest: str, value: BrokenGlass, now: float) -> KeptGlass:
    """Keeps it and has it signed. Raises `InvalidInput` while an earlier one over the same bytes waits for its review."""
    # Whoever asks for the same version waits here: of two at once one is the first.
    c.execute(sa.select(evaluation.c.key).where(evaluation.c.key == key).with_for_update())
    ledger_evaluations.refuse_reopened(c, key)
    same = sa.select(glass.c.seq).where(glass.c.candidate_digest == candidate_digest, *_UNDECIDED)
    if c.execute(same.limit(1)).first() is not None:
        raise InvalidInput(
            "expected files over which no glass was broken that waits for its review, found one; have it reviewed first: "
            "basin-gate review ls"
        )
    row = {"key": key, "candidate_digest": candidate_digest, "body": value.model_dump_json()}
    times = {"expires_at": value.expires_at, "review_by": value.review_by}
    made = c.execute(sa.insert(glass).values(row | times).returning(glass.c.seq)).scalar_one()
    _enqueue(c, key, made, "broken", now)
    _record(c, "glass broken", value.by, one(c, made), now, reason=value.reason, verdict=value.verdict_digest)
    return one(c, made)


def save(c: sa.Connection, seq: int, value: Verdict, envelope: Mapping[str, Any], now: float) -> None:
    """Keeps the approval that came of it, once; it counts until it ends, and what was judged stays as it is."""
    unsigned = glass.c.seq == seq, glass.c.signed_at.is_(None), glass.c.ended_at.is_(None)
    written = {"verdict": value.model_dump_json(), "schema": ledger_documents.DOCUMENT_SCHEMA}
    signed = {**written, "envelope": json.dumps(dict(envelope)), "signed_at": now}
    if c.execute(sa.update(glass).where(*unsigned).values(signed)).rowcount != 1:
        return
    kept = one(c, seq)
    ledger_records.show_current(c, kept.evaluation, now)
    detail = {"evaluation": kept.evaluation, "subject": value.subject, "outcome": value.outcome}
    ledger_audit.append(c, "verdict", "glass", detail | {"verdict": value.digest}, now)


def end(c: sa.Connection, seq: int, reason: str, now: float) -> None:
    """Ends it now: what was judged counts again."""
    kept = one(c, seq)
    open_ = glass.c.seq == seq, glass.c.ended_at.is_(None)
    if c.execute(sa.update(glass).where(*open_).values(ended_at=now)).rowcount == 1:
        ledger_records.show_current(c, kept.evaluation, now)
        _record(c, "glass ended", "gate", kept, now, reason=reason)


def expire(c: sa.Connection, now: float) -> int:
    """Ends each whose time is over; how many."""
    over = sa.select(glass.c.seq).where(glass.c.ended_at.is_(None), glass.c.expires_at <= now)
    found = c.execute(over.order_by(glass.c.seq)).scalars().all()
    for seq in found:
        end(c, seq, "its time is over", now)
    return len(found)


def review(c: sa.Connection, seq: int, value: Review, now: float) -> KeptGlass:
    """Keeps what somebody said of it afterwards, once; rejected, it ends now and its approval is revoked by a worker."""
    c.execute(sa.select(glass.c.seq).where(glass.c.seq == seq).with_for_update())
    kept = one(c, seq)
    if kept.review is not None:
        raise InvalidInput(f"expected a broken glass that nobody reviewed, found it reviewed by {kept.review.reviewer}")
    c.execute(sa.update(glass).where(glass.c.seq == seq).values(review=value.model_dump_json()))
    _record(c, "glass reviewed", value.reviewer, kept, now, decision=value.decision, reason=value.reason)
    if value.decision is ReviewDecision.REJECT:
        end(c, seq, f"rejected by {value.reviewer}", now)
        _enqueue(c, kept.evaluation, seq, "rejected", now)
    return one(c, seq)


def one(c: sa.Connection, seq: int) -> KeptGlass:
    """A broken glass by its number. Raises `NotFound`."""
    row = c.execute(_kept_ones().where(glass.c.seq == seq)).first()
    if row is None:
        raise NotFound(f"expected a broken glass {seq}, found none")
    return _kept(row)


def listing(c: sa.Connection, key: str | None, limit: int) -> Sequence[KeptGlass]:
    """Broken glasses (of one evaluation), those that wait for a review first, then the newest first."""
    waits = sa.case((sa.and_(*_UNDECIDED), 0), else_=1)
    query = _kept_ones().order_by(waits, glass.c.seq.desc()).limit(limit)
    return [_kept(row) for row in c.execute(query if key is None else query.where(glass.c.key == key))]


def counts(c: sa.Connection, now: float) -> Mapping[str, int]:
    """How many are in force, wait for their review, and wait for it longer than they may."""
    signed, open_ = glass.c.signed_at.is_not(None), glass.c.review.is_(None)
    which = {
        IN_FORCE: (signed, glass.c.ended_at.is_(None), glass.c.expires_at > now),
        UNREVIEWED: (signed, open_, glass.c.review_by > now),
        OVERDUE: (signed, open_, glass.c.review_by <= now),
    }
    counted = sa.select(*(sa.func.count(sa.case((sa.and_(*each), 1))).label(state) for state, each in which.items()))
    return dict(c.execute(counted).mappings().one())


def _enqueue(c: sa.Connection, key: str, seq: int, cause: str, now: float) -> None:
    job = JobRequest(glass_key(key, seq, cause), GLASS, CPU_QUEUE, {"evaluation": key, "glass": seq})
    ledger_jobs.enqueue(c, [job], now)


def _record(c: sa.Connection, event: str, actor: str, kept: KeptGlass, now: float, **more: str) -> None:
    said = kept.glass
    detail = {
        "glass": said.digest,
        "evaluation": kept.evaluation,
        "subject": kept.request.version.identity,
        "ticket": said.ticket,
        "expires_at": said.expires_at,
        "review_by": said.review_by,
    }
    ledger_audit.append(c, event, actor, detail | more, now)


def _kept_ones() -> sa.Select[Any]:
    return sa.select(glass, evaluation.c.request).join(evaluation, evaluation.c.key == glass.c.key)


def _kept(row: sa.Row[Any]) -> KeptGlass:
    about = f"glass {row.seq}"
    return KeptGlass(
        id=row.seq,
        evaluation=row.key,
        request=ledger_documents.read_document(EvaluationRequest, about, row.request),
        glass=ledger_documents.read_document(BrokenGlass, about, row.body),
        signed=row.signed_at is not None,
        ended=row.ended_at is not None,
        review=None if row.review is None else ledger_documents.read_document(Review, about, row.review),
    )
