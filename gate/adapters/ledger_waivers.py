"""Waivers: asked for, approved, ended; each end or beginning has the verdicts it touches judged again from evidence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_documents, ledger_evaluations, ledger_jobs, ledger_records
from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import rejudged, verdict, waiver
from gate.domain.errors import InvalidInput, NotFound, Unavailable
from gate.domain.jobs import CPU_QUEUE, REJUDGE, rejudge_key
from gate.domain.overview import WaiverPage, WaiverQuery
from gate.domain.records import JobRequest, KeptWaiver, WaiverState
from gate.domain.verdict import Verdict
from gate.domain.waiver import Approval, Waiver
from gate.domain.waiving import refuse_approval


def ask(c: sa.Connection, value: Waiver, critical: bool, now: float) -> KeptWaiver:
    """Keeps a waiver that was asked for; the same one again is the one that is there."""
    row = {
        "id": value.id,
        "body": value.model_dump_json(),
        "candidate_digest": value.candidate_digest,
        "policy": value.policy,
        "critical": critical,
        "state": WaiverState.REQUESTED,
        "expires_at": value.expires_at,
        "changed_at": now,
    }
    if insert_new(c, waiver, row):
        _record(c, "waiver requested", value.requested_by, value, now, reason=value.reason, owner=value.owner)
    return one(c, value.id)


def approve(c: sa.Connection, id_: str, approval: Approval, now: float) -> KeptWaiver:
    """Adds an approval; with enough of them the waiver is granted and what it touches is judged again."""
    kept = _locked(c, id_, WaiverState.REQUESTED)
    refuse_approval(kept.waiver, approval, int(now))
    value = kept.waiver.approved(approval)
    granted = value.enough(kept.critical)
    state = WaiverState.GRANTED if granted else WaiverState.REQUESTED
    _change(c, id_, now, body=value.model_dump_json(), state=state)
    _record(c, "waiver granted" if granted else "waiver approved", approval.approver, value, now)
    if granted:
        _judge_again(c, value, state, now)
    return one(c, id_)


def revoke(c: sa.Connection, id_: str, actor: str, reason: str, now: float) -> KeptWaiver:
    """Ends a waiver before its time, or turns a request down."""
    kept = _locked(c, id_, WaiverState.REQUESTED, WaiverState.GRANTED)
    _change(c, id_, now, state=WaiverState.REVOKED, ended_because=reason)
    _record(c, "waiver revoked", actor, kept.waiver, now, reason=reason)
    if kept.state is WaiverState.GRANTED:
        _judge_again(c, kept.waiver, WaiverState.REVOKED, now)
    return one(c, id_)


def expire(c: sa.Connection, now: float) -> int:
    """Ends every waiver whose time is over; how many."""
    open_ones = waiver.c.state.in_([WaiverState.REQUESTED, WaiverState.GRANTED])
    over = c.execute(sa.select(waiver).where(open_ones, waiver.c.expires_at <= now).order_by(waiver.c.id)).all()
    for kept in map(_kept, over):
        _change(c, kept.waiver.id, now, state=WaiverState.EXPIRED)
        _record(c, "waiver expired", "gate", kept.waiver, now)
        if kept.state is WaiverState.GRANTED:
            _judge_again(c, kept.waiver, WaiverState.EXPIRED, now)
    return len(over)


def sign(c: sa.Connection, id_: str, envelope: Mapping[str, Any]) -> None:
    """Keeps the signed document of a granted waiver; the first stands."""
    unsigned = waiver.c.id == id_, waiver.c.state == WaiverState.GRANTED, waiver.c.envelope.is_(None)
    c.execute(sa.update(waiver).where(*unsigned).values(envelope=json.dumps(dict(envelope))))


def one(c: sa.Connection, id_: str) -> KeptWaiver:
    """A waiver by its id. Raises `NotFound`."""
    row = c.execute(sa.select(waiver).where(waiver.c.id == id_)).first()
    if row is None:
        raise NotFound(f"expected a waiver {id_}, found none; basin-gate waiver ls tells those there are")
    return _kept(row)


def listing(c: sa.Connection, candidate_digest: str | None, limit: int) -> Sequence[KeptWaiver]:
    """Waivers, those in force or asked for first, then by when they end."""
    closed = sa.case((waiver.c.state.in_([WaiverState.REQUESTED, WaiverState.GRANTED]), 0), else_=1)
    query = sa.select(waiver).order_by(closed, waiver.c.expires_at, waiver.c.id).limit(limit)
    if candidate_digest is not None:
        query = query.where(waiver.c.candidate_digest == candidate_digest)
    return [_kept(row) for row in c.execute(query)]


def page(c: sa.Connection, query: WaiverQuery) -> WaiverPage:
    """Waivers as they stand at a time, whether or not a sweep has ended those that are over."""
    standing = _standing(query.at)
    ended = standing == "ended"
    order = sa.case((ended, 1), else_=0), sa.case((ended, -waiver.c.changed_at), else_=waiver.c.expires_at), waiver.c.id
    wanted = sa.select(waiver).order_by(*order).offset(query.offset).limit(query.limit + 1)
    if query.standing is not None:
        wanted = wanted.where(standing == query.standing)
    found = [_kept(row) for row in c.execute(wanted)]
    counted = c.execute(sa.select(standing, sa.func.count()).group_by(standing)).all()
    return WaiverPage(found[: query.limit], len(found) > query.limit, {row[0]: row[1] for row in counted})


def _standing(at: float) -> sa.ColumnElement[str]:
    lasts = waiver.c.expires_at > at
    in_force = sa.and_(waiver.c.state == WaiverState.GRANTED, lasts)
    waiting = sa.and_(waiver.c.state == WaiverState.REQUESTED, lasts)
    return sa.case((in_force, "in_force"), (waiting, "waiting"), else_="ended")


def replace_verdict(c: sa.Connection, key: str, value: Verdict, envelope: Mapping[str, Any], now: float) -> None:
    """Keeps a verdict that was judged again; it counts from now on, and those before stay as they are."""
    refuse_ended(c, value, now)
    written = {"body": value.model_dump_json(), "schema": ledger_documents.DOCUMENT_SCHEMA}
    row = {"key": key, **written, "envelope": json.dumps(dict(envelope)), "saved_at": now}
    c.execute(sa.insert(rejudged).values(row))
    ledger_records.show_current(c, key, now)
    ledger_evaluations.note(c, key, now, evidence_key=value.evidence_key, worst_change=value.worst_change)
    detail = {"evaluation": key, "subject": value.subject, "outcome": value.outcome, "verdict": value.digest}
    ledger_audit.append(c, "verdict", "judge", detail, now)


def first_judged_at(c: sa.Connection, key: str) -> int | None:
    """When an evaluation's evidence was judged for the first time: judging again gives no longer life."""
    body = c.execute(sa.select(verdict.c.body).where(verdict.c.key == key)).scalar()
    return None if body is None else ledger_documents.read_document(Verdict, key, body).judged_at


def refuse_ended(c: sa.Connection, value: Verdict, now: float) -> None:
    """Raises `Unavailable`, so that it is judged again, where a waiver ended after the verdict was reached on it."""
    for each in value.waivers:
        kept = _locked(c, each.id, *WaiverState)
        if kept.state is not WaiverState.GRANTED or kept.waiver.expires_at <= now:
            raise Unavailable(
                f"expected waiver {each.id[:12]} to be in force still, found it {kept.state}; judging again"
            )


def counts(c: sa.Connection) -> tuple[Mapping[str, int], float | None]:
    """Waivers by state, and when the first of those granted ends."""
    counted = c.execute(sa.select(waiver.c.state, sa.func.count()).group_by(waiver.c.state)).all()
    ends = sa.select(sa.func.min(waiver.c.expires_at)).where(waiver.c.state == WaiverState.GRANTED)
    return {row[0]: row[1] for row in counted}, c.execute(ends).scalar()


def _judge_again(c: sa.Connection, value: Waiver, cause: WaiverState, now: float) -> None:
    query = sa.select(verdict.c.key, verdict.c.body).where(verdict.c.body.contains(value.candidate_digest))
    # The text is searched before it is parsed: of many verdicts few are about these bytes.
    for row in c.execute(query).all():
        judged = Verdict.model_validate_json(row.body)
        if (judged.candidate_digest, judged.policy) == (value.candidate_digest, value.policy):
            key = rejudge_key(row.key, value.id, cause)
            ledger_jobs.enqueue(c, [JobRequest(key, REJUDGE, CPU_QUEUE, {"evaluation": row.key})], now)


def _locked(c: sa.Connection, id_: str, *states: WaiverState) -> KeptWaiver:
    """The waiver, for this transaction alone to change. Raises `NotFound`, and `InvalidInput` in another state."""
    c.execute(sa.select(waiver.c.id).where(waiver.c.id == id_).with_for_update())
    kept = one(c, id_)
    if kept.state not in states:
        wanted = " or ".join(states)
        raise InvalidInput(f"expected a waiver that is {wanted}, found one that is {kept.state}; ask for a new one")
    return kept


def _change(c: sa.Connection, id_: str, now: float, **values: Any) -> None:
    c.execute(sa.update(waiver).where(waiver.c.id == id_).values(values | {"changed_at": now}))


def _record(c: sa.Connection, event: str, actor: str, value: Waiver, now: float, **more: str) -> None:
    detail = {
        "waiver": value.id,
        "candidate": value.candidate_digest,
        "policy": value.policy,
        "rule": value.rule,
        "ticket": value.ticket,
        "expires_at": value.expires_at,
        "approvers": list(value.approvers),
    }
    ledger_audit.append(c, event, actor, detail | more, now)


def _kept(row: sa.Row[Any]) -> KeptWaiver:
    return KeptWaiver(
        waiver=ledger_documents.read_document(Waiver, row.id, row.body),
        state=WaiverState(row.state),
        critical=row.critical,
        envelope=None if row.envelope is None else json.loads(row.envelope),
        ended_because=row.ended_because,
    )
