"""Evaluations that a newer version of the same registered model has made pointless, ended before they are begun.

One that is being worked on, or that somebody waits for, goes on. Ended so, an evaluation has no verdict and never gets one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_evaluations
from gate.adapters.ledger_documents import read_document
from gate.adapters.ledger_tables import DONE, ENDED, FAILED, QUEUED, WAITING, evaluation, job
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key, measure_key
from gate.domain.scheduling import AWAITED_S

IDLE = (QUEUED, WAITING)


@dataclass(frozen=True, slots=True)
class _Asked:
    """An evaluation that was asked for, and whether it is open."""

    request: EvaluationRequest
    evidence_key: str | None
    open: bool

    def supersedes(self, other: "_Asked") -> bool:
        """Whether this is of a newer version, under the policy of the same name."""
        mine, its = self.request, other.request
        newer = (mine.version.created_ms, int(mine.version.version)) > (
            its.version.created_ms,
            int(its.version.version),
        )
        return newer and mine.policy == its.policy and mine.version.name == its.version.name


def cancel(c: sa.Connection, now: float) -> int:
    """Ends every open evaluation that has been superseded and not been begun; how many."""
    return sum(_cancelled(c, old, newer, now) for old, newer in _superseded(c))


def _superseded(c: sa.Connection) -> Iterator[tuple[_Asked, _Asked]]:
    """Open evaluations, each with the newest one of its model that supersedes it."""
    later = evaluation.alias("later")
    overtaken = sa.exists().where(later.c.name == evaluation.c.name, later.c.created_at > evaluation.c.created_at)
    names = sa.select(evaluation.c.name).where(evaluation.c.outcome.is_(None), overtaken).distinct()
    for name in c.execute(names).scalars().all():
        asked = _asked(c, name)
        for old in asked:
            newer = [each for each in asked if each.supersedes(old)]
            if old.open and newer:
                yield (
                    old,
                    max(newer, key=lambda each: (each.request.version.created_ms, int(each.request.version.version))),
                )


def _asked(c: sa.Connection, name: str) -> Sequence[_Asked]:
    """The evaluations of a model since its oldest open one."""
    columns = evaluation.c.key, evaluation.c.request, evaluation.c.evidence_key, evaluation.c.outcome
    oldest = sa.select(sa.func.min(evaluation.c.created_at)).where(
        evaluation.c.name == name, evaluation.c.outcome.is_(None)
    )
    rows = c.execute(
        sa.select(*columns).where(evaluation.c.name == name, evaluation.c.created_at >= oldest.scalar_subquery())
    )
    return [
        _Asked(read_document(EvaluationRequest, row.key, row.request), row.evidence_key, row.outcome is None)
        for row in rows
    ]


def _cancelled(c: sa.Connection, old: _Asked, newer: _Asked, now: float) -> bool:
    key = old.request.key
    keys = [inspect_key(key), judge_key(key), *([measure_key(old.evidence_key)] if old.evidence_key else [])]
    # In the order of their keys, as everywhere: transactions that meet do not deadlock.
    rows = c.execute(sa.select(job).where(job.c.key.in_(keys)).order_by(job.c.key).with_for_update()).all()
    states = {row.key: row.state for row in rows}
    awaited = any(row.awaited_at is not None and row.awaited_at >= now - AWAITED_S for row in rows)
    begun = states.get(keys[0]) not in (*IDLE, DONE) or states.get(keys[1]) != WAITING
    measuring = any(states.get(each) not in IDLE for each in keys[2:]) or _shared(c, old)
    if awaited or begun or measuring or (states[keys[0]] == DONE and not keys[2:]):
        return False
    reason = (
        f"superseded by version {newer.request.version.version} before it was measured; register the same files again to "
        "have them judged"
    )
    ended = {"state": FAILED, "error": reason, "ended_at": now, "lease_until": None}
    c.execute(sa.update(job).where(job.c.key.in_(keys), job.c.state.not_in(ENDED)).values(ended))
    ledger_evaluations.close(c, key, ledger_evaluations.SUPERSEDED, reason, now)
    detail = {"evaluation": key, "subject": old.request.version.identity, "by": newer.request.version.identity}
    ledger_audit.append(c, "evaluation superseded", "gate", detail, now)
    return True


def _shared(c: sa.Connection, old: _Asked) -> bool:
    """Whether another open evaluation rests on the same measurement."""
    others = evaluation.c.evidence_key == old.evidence_key, evaluation.c.key != old.request.key
    query = sa.select(evaluation.c.key).where(*others, evaluation.c.outcome.is_(None)).limit(1)
    return old.evidence_key is not None and c.execute(query).first() is not None
