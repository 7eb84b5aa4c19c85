"""The job table: claiming with a lease and an epoch, letting go, ending, and repair after crashes.

An epoch is a fencing token: each claim raises it, and whoever writes under an older one is refused. A worker
that was thought dead and comes back can therefore never overwrite what its successor did.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_evaluations, ledger_outbox, ledger_runs, tracing
from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import ENDED, FAILED, QUEUED, RUNNING, WAITING, job
from gate.domain.errors import InvalidInput, LostLease
from gate.domain.jobs import JUDGE, NOISE, PROFILE, evaluation_of_judge
from gate.domain.records import Claim, JobRequest

Outcome: TypeAlias = tuple[str, Mapping[str, Any] | None, str | None]

ACTOR = "ledger"
SHARED = (PROFILE, NOISE)
"""What is done for all fine-tunes of a base, and so for no registered model."""
LONGEST_SILENCE_S = 600.0


def enqueue(
    c: sa.Connection,
    requests: Sequence[JobRequest],
    now: float,
    replacing: str | None = None,
    model: str | None = None,
) -> None:
    """Makes sure each job is there. One that failed is tried anew, one that waits for ``replacing`` is asked anew.

    ``model`` is the registered model that the work is for; the jobs that follow ``replacing`` are for its model.
    """
    # What is waited for is locked before what waits, here as everywhere: transactions that meet do not deadlock.
    needed = {request.waits_for for request in requests} - {None}
    c.execute(sa.select(job.c.key).where(job.c.key.in_(needed)).order_by(job.c.key).with_for_update()).all()
    inherited = _inherited(c, replacing) if replacing is not None else {"model": model}
    for request in requests:
        _enqueue(c, request, now, replacing, inherited)


def claim(
    c: sa.Connection, key: str, owner: str, lease_s: float, now: float, awaited: bool | None = None
) -> Claim | None:
    """Takes a job that is due, or whose holder's lease has ended; ``awaited`` says whether it was taken out of turn."""
    due = sa.and_(job.c.state == QUEUED, job.c.not_before <= now)
    orphaned = sa.and_(job.c.state == RUNNING, job.c.lease_until < now)
    taken = {
        "state": RUNNING,
        "epoch": job.c.epoch + 1,
        "attempts": job.c.attempts + 1,
        "owner": owner,
        "lease_until": now + lease_s,
    }
    row = c.execute(sa.update(job).where(job.c.key == key, sa.or_(due, orphaned)).values(taken).returning(job)).first()
    if row is None:
        return None
    ledger_runs.begin(c, row, now, awaited)
    return _claim_of(row)


def hold(c: sa.Connection, claim: Claim) -> None:
    """Checks that the claim still stands, and keeps it so until this transaction ends."""
    if c.execute(sa.select(job.c.key).where(*_under(claim)).with_for_update()).first() is None:
        raise _lost(claim)


def renew(c: sa.Connection, claim: Claim, lease_s: float, now: float, progress: Mapping[str, Any] | None) -> None:
    """Moves the lease's end, and the progress if there is any."""
    values: dict[str, Any] = {"lease_until": now + lease_s}
    if progress is not None:
        values["progress"] = dict(progress)
    _change(c, claim, values)


def end(
    c: sa.Connection,
    claim: Claim,
    now: float,
    *,
    state: str,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
    then: Sequence[JobRequest] = (),
) -> None:
    """Ends a job for good and lets the jobs that waited for it go on, whichever way it ended."""
    kept = None if result is None else dict(result)
    _change(c, claim, {"state": state, "ended_at": now, "lease_until": None, "result": kept, "error": error})
    ledger_runs.end(c, claim.key, claim.epoch, state, now, error)
    enqueue(c, then, now, replacing=claim.key)
    _let_go_on(c, now, job.c.waits_for == claim.key)
    if state == FAILED:
        if claim.kind == JUDGE:
            ledger_evaluations.close(c, evaluation_of_judge(claim.key), "error", error or "judging failed", now)
        ledger_audit.append(c, "job failed", ACTOR, {"job": claim.key, "error": error}, now)


def wait(
    c: sa.Connection, claim: Claim, needs: Sequence[JobRequest], now: float, progress: Mapping[str, Any] | None = None
) -> None:
    """Lets go of a job until others have ended; goes on at once where they already have."""
    keys = [each.key for each in needs]
    if not keys or claim.key in keys:
        found = "itself" if keys else "none"
        raise InvalidInput(f"job {claim.key}: expected to wait for other jobs, found {found}; name those it needs")
    ended = _ended(c, keys)
    still = [each for each in needs if each.key not in ended]
    values = {"state": WAITING, "waits_for": (still or needs)[-1].key, "lease_until": None, "queued_at": now}
    _change(c, claim, values | ({} if progress is None else {"progress": dict(progress)}))
    begun = ledger_runs.begun_at(c, claim.key, claim.epoch)
    ledger_runs.end(c, claim.key, claim.epoch, ledger_runs.WAITS, now)
    # Counted as an attempt: a job that keeps waiting for what had ended before it looked must come to an end too.
    in_vain = not still and all(at <= begun for at in ended.values())
    if not in_vain:
        c.execute(sa.update(job).where(job.c.key == claim.key).values(attempts=job.c.attempts - 1))
    inherited = _inherited(c, claim.key)
    for each in still:
        _enqueue(c, each, now, None, inherited)
    if not still:
        _let_go_on(c, now, job.c.key == claim.key)


def retry(c: sa.Connection, claim: Claim, now: float, *, error: str, delay_s: float, outage: bool) -> None:
    """Lets go of a job until ``delay_s`` from now."""
    due = now + delay_s
    values: dict[str, Any] = {"state": QUEUED, "lease_until": None, "error": error, "not_before": due, "queued_at": due}
    if outage:
        values |= {"attempts": job.c.attempts - 1, "outages": job.c.outages + 1}
    _change(c, claim, values)
    ended = ledger_runs.PUT_OFF if outage else ledger_runs.RETRIED
    ledger_runs.end(c, claim.key, claim.epoch, ended, now, error)
    row = c.execute(sa.select(job.c.queue).where(job.c.key == claim.key)).one()
    ledger_outbox.ring(c, claim.key, claim.kind, row.queue, now, due)


def abandon(c: sa.Connection, owner: str, now: float, error: str, max_attempts: int) -> bool:
    """Gives back the job of a dead worker, if it still holds one."""
    held = sa.select(job).where(job.c.state == RUNNING, job.c.owner == owner).with_for_update()
    row = c.execute(held).first()
    if row is None:
        return False
    _give_back(c, _claim_of(row), now, error, max_attempts)
    return True


def sweep(c: sa.Connection, now: float, ring_after_s: float, max_attempts: int) -> int:
    """Takes expired leases back, lets stranded jobs go on, rings again where a doorbell seems lost."""
    expired = sa.select(job).where(job.c.state == RUNNING, job.c.lease_until < now).with_for_update(skip_locked=True)
    orphans = [_claim_of(row) for row in c.execute(expired)]
    for orphan in orphans:
        error = f"the lease ended: worker lost or stalled (attempt {orphan.attempts} of {max_attempts})"
        _give_back(c, orphan, now, error, max_attempts)
    needed = job.alias("needed")
    open_need = sa.exists().where(needed.c.key == job.c.waits_for, needed.c.state.not_in(ENDED))
    stranded = _let_go_on(c, now, sa.not_(open_need))
    return len(orphans) + stranded + _ring_again(c, now, ring_after_s)


def leave_queues(c: sa.Connection, known: Sequence[str], into: str, now: float) -> int:
    """Moves what nobody has begun from any other queue than the known ones, and rings for what is due."""
    stray = sa.select(job.c.key).where(job.c.state.in_((QUEUED, WAITING)), job.c.queue.not_in(known))
    keys = c.execute(stray.order_by(job.c.key).with_for_update()).scalars().all()
    moved = sa.update(job).where(job.c.key.in_(keys)).values(queue=into)
    for row in c.execute(moved.returning(job.c.key, job.c.kind, job.c.state)).all():
        if row.state == QUEUED:
            ledger_outbox.ring(c, row.key, row.kind, into, now)
    return len(keys)


def due(c: sa.Connection, queue: str, now: float, limit: int) -> Sequence[str]:
    """Keys of the jobs of a queue that are due, the longest waiting first."""
    which = job.c.queue == queue, job.c.state == QUEUED, job.c.not_before <= now
    found = sa.select(job.c.key).where(*which).order_by(job.c.queued_at, job.c.key).limit(limit)
    return list(c.execute(found).scalars())


def outcome(c: sa.Connection, key: str) -> Outcome | None:
    """A job's state, result and last error."""
    return outcomes(c, [key]).get(key)


def outcomes(c: sa.Connection, keys: Sequence[str]) -> Mapping[str, Outcome]:
    """State, result and last error of those of the jobs that are there."""
    found = sa.select(job.c.key, job.c.state, job.c.result, job.c.error).where(job.c.key.in_(keys))
    return {row.key: (row.state, row.result, row.error) for row in c.execute(found)}


def counts(c: sa.Connection) -> Mapping[tuple[str, str], int]:
    """Jobs by queue and state."""
    query = sa.select(job.c.queue, job.c.state, sa.func.count()).group_by(job.c.queue, job.c.state)
    return {(queue, state): count for queue, state, count in c.execute(query)}


def oldest(c: sa.Connection, now: float) -> Mapping[str, float]:
    """Seconds that the oldest due job of each queue has waited."""
    due = job.c.state == QUEUED, job.c.not_before <= now
    query = sa.select(job.c.queue, sa.func.min(job.c.queued_at)).where(*due).group_by(job.c.queue)
    return {queue: max(0.0, now - since) for queue, since in c.execute(query)}


def expired_leases(c: sa.Connection, now: float) -> int:
    """Running jobs whose holder has not renewed in time."""
    query = sa.select(sa.func.count()).where(job.c.state == RUNNING, job.c.lease_until < now)
    return c.execute(query).scalar_one()


def _inherited(c: sa.Connection, key: str) -> Mapping[str, Any]:
    """What the jobs that follow another take over from it."""
    row = c.execute(sa.select(job.c.model, job.c.awaited_at).where(job.c.key == key)).mappings().first()
    return dict(row) if row else {}


def _enqueue(
    c: sa.Connection, request: JobRequest, now: float, replacing: str | None, inherited: Mapping[str, Any]
) -> None:
    waits = request.waits_for is not None and not _has_ended(c, request.waits_for)
    asked: dict[str, Any] = {
        "queue": request.queue,
        "payload": dict(request.payload),
        "state": WAITING if waits else QUEUED,
        "waits_for": request.waits_for,
        "not_before": now,
        "queued_at": now,
    }
    asked |= inherited if request.kind not in SHARED else {**inherited, "model": None}
    traceparent = tracing.carrier()
    if traceparent is not None:
        asked["trace"] = traceparent
    asked_now = _insert(c, request, asked, now) or _ask_anew(c, request.key, asked, replacing)
    if asked_now and not waits:
        ledger_outbox.ring(c, request.key, request.kind, request.queue, now)


def _insert(c: sa.Connection, request: JobRequest, asked: Mapping[str, Any], now: float) -> bool:
    fixed = {"key": request.key, "kind": request.kind, "created_at": now, "rung_at": now}
    return insert_new(c, job, fixed | {"epoch": 0, "attempts": 0, "outages": 0} | dict(asked))


def _ask_anew(c: sa.Connection, key: str, asked: Mapping[str, Any], replacing: str | None) -> bool:
    waits_for_replaced = sa.and_(job.c.state == WAITING, job.c.waits_for == replacing)
    again = sa.update(job).where(job.c.key == key, sa.or_(job.c.state == FAILED, waits_for_replaced))
    fresh = {"attempts": 0, "outages": 0, "error": None, "progress": None, "ended_at": None}
    return c.execute(again.values(dict(asked) | fresh)).rowcount == 1


def _has_ended(c: sa.Connection, key: str) -> bool:
    return key in _ended(c, [key])


def _ended(c: sa.Connection, keys: Sequence[str]) -> Mapping[str, float]:
    """Those of the jobs that have ended, and when."""
    # The rows are locked: they cannot end between this look and the moment somebody is seen waiting for them.
    wanted = sa.select(job.c.key, job.c.state, job.c.ended_at).where(job.c.key.in_(keys))
    rows = c.execute(wanted.order_by(job.c.key).with_for_update()).all()
    return {row.key: row.ended_at or 0.0 for row in rows if row.state in ENDED}


def _let_go_on(c: sa.Connection, now: float, which: sa.ColumnElement[bool]) -> int:
    waiting = sa.update(job).where(job.c.state == WAITING, which)
    queued = waiting.values(state=QUEUED, not_before=now, queued_at=now).returning(job.c.key, job.c.kind, job.c.queue)
    rows = c.execute(queued).all()
    for row in rows:
        ledger_outbox.ring(c, row.key, row.kind, row.queue, now)
    return len(rows)


def _ring_again(c: sa.Connection, now: float, ring_after_s: float) -> int:
    # Each silence is twice as long as the one before: jobs that queue for hours do not fill the broker.
    since_ring, rung_for = now - job.c.rung_at, job.c.rung_at - job.c.queued_at
    silent_long = sa.and_(since_ring >= ring_after_s, sa.or_(since_ring >= rung_for, since_ring >= LONGEST_SILENCE_S))
    silent = job.c.state == QUEUED, job.c.not_before <= now, silent_long
    asked = ledger_outbox.outstanding_subjects(ledger_outbox.DOORBELL)
    rows = c.execute(sa.select(job.c.key, job.c.kind, job.c.queue).where(*silent, job.c.key.not_in(asked))).all()
    for row in rows:
        ledger_outbox.ring(c, row.key, row.kind, row.queue, now)
    return len(rows)


def _give_back(c: sa.Connection, claim: Claim, now: float, error: str, max_attempts: int) -> None:
    ledger_runs.end(c, claim.key, claim.epoch, ledger_runs.LOST, now)
    if claim.attempts >= max_attempts:
        end(c, claim, now, state=FAILED, error=error)
    else:
        retry(c, claim, now, error=error, delay_s=0.0, outage=False)


def _change(c: sa.Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    if c.execute(sa.update(job).where(*_under(claim)).values(dict(values))).rowcount != 1:
        raise _lost(claim)


def _under(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return job.c.key == claim.key, job.c.epoch == claim.epoch, job.c.state == RUNNING


def _lost(claim: Claim) -> LostLease:
    return LostLease(
        f"job {claim.key}: expected to hold it under epoch {claim.epoch}, found it given to somebody else; "
        "stop and discard this result"
    )


def _claim_of(row: sa.Row[Any]) -> Claim:
    return Claim(row.key, row.kind, row.payload, row.epoch, row.attempts, row.outages, row.trace)
