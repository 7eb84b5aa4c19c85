"""Which job a free worker begins: the ledger's rows laid before ``gate.domain.scheduling``, and the job taken."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_jobs
from gate.adapters.ledger_tables import ENDED, QUEUED, RUNNING, evaluation, job, job_run
from gate.domain.jobs import JUDGE, NOISE, PROFILE, inspect_key, judge_key, measure_key, noise_prefix
from gate.domain.records import Claim
from gate.domain.scheduling import AWAITED_S, Lane, Sharing, Turn, by_team, turns, with_use

_MODEL = sa.func.coalesce(job.c.model, "")


def claim_next(c: sa.Connection, rung: str, owner: str, lease_s: float, now: float, sharing: Sharing) -> Claim | None:
    """Takes the job whose turn it is on the queue of the job that was rung for."""
    queue = c.execute(sa.select(job.c.queue).where(job.c.key == rung)).scalar()
    if queue is None:
        return None
    return _judgement(c, queue, owner, lease_s, now) or _in_turn(c, queue, owner, lease_s, now, sharing)


def await_verdict(c: sa.Connection, evaluation_key: str, now: float) -> None:
    """Marks the jobs that an evaluation still needs, and what they wait for, as waited for by somebody now."""
    evidence = c.execute(sa.select(evaluation.c.evidence_key).where(evaluation.c.key == evaluation_key)).scalar()
    own = [inspect_key(evaluation_key), judge_key(evaluation_key), *([measure_key(evidence)] if evidence else [])]
    waited_for = sa.select(job.c.waits_for).where(job.c.key.in_(own), job.c.waits_for.is_not(None))
    needed = c.execute(waited_for).scalars().all()
    parts = [_draws_of(key) for key in needed if key.startswith(f"{PROFILE}:")]
    which = sa.select(job.c.key).where(sa.or_(job.c.key.in_([*own, *needed]), *parts), job.c.state.not_in(ENDED))
    # In the order of their keys, as everywhere: transactions that meet do not deadlock.
    keys = c.execute(which.order_by(job.c.key).with_for_update()).scalars().all()
    c.execute(sa.update(job).where(job.c.key.in_(keys)).values(awaited_at=now))


def _draws_of(profile: str) -> sa.ColumnElement[bool]:
    """The draws of noise of a profile that are still to be scored."""
    mine = job.c.key.startswith(noise_prefix(profile), autoescape=True)
    return sa.and_(job.c.state.in_((QUEUED, RUNNING)), job.c.kind == NOISE, mine)


def _judgement(c: sa.Connection, queue: str, owner: str, lease_s: float, now: float) -> Claim | None:
    # Judging takes a moment and ends an evaluation; there is one for each inspection, so it keeps none of them waiting.
    return _taken(c, (*_due(queue, now), job.c.kind == JUDGE), owner, lease_s, now, None)


def _in_turn(c: sa.Connection, queue: str, owner: str, lease_s: float, now: float, sharing: Sharing) -> Claim | None:
    models = _waiting(c, queue, now)
    lanes = with_use(by_team(models, sharing), _use(c, queue, now, sharing))
    for turn in turns(lanes, _awaited_last(c, queue)):
        names = [lane.team for lane in models if sharing.team(lane.team) == turn.team]
        claimed = _taken(c, (*_due(queue, now), *_of(turn, names, now)), owner, lease_s, now, turn.awaited)
        if claimed is not None:
            return claimed
    return None


def _taken(
    c: sa.Connection,
    which: Iterable[sa.ColumnElement[bool]],
    owner: str,
    lease_s: float,
    now: float,
    awaited: bool | None,
) -> Claim | None:
    """The one of these jobs that has waited longest; those that another worker is taking now are left to it."""
    oldest = sa.select(job.c.key).where(*which).order_by(job.c.queued_at, job.c.key).limit(1)
    key = c.execute(oldest.with_for_update(skip_locked=True)).scalar()
    return None if key is None else ledger_jobs.claim(c, key, owner, lease_s, now, awaited)


def _due(queue: str, now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return job.c.queue == queue, job.c.state == QUEUED, job.c.not_before <= now


def _of(turn: Turn, models: list[str], now: float) -> list[sa.ColumnElement[bool]]:
    return [_MODEL.in_(models), *([job.c.awaited_at >= now - AWAITED_S] if turn.awaited else [])]


def _waiting(c: sa.Connection, queue: str, now: float) -> list[Lane]:
    """The models that have a job due, each as a lane of its own."""
    awaited = sa.case((job.c.awaited_at >= now - AWAITED_S, job.c.queued_at))
    columns = _MODEL, sa.func.min(job.c.queued_at), sa.func.min(awaited)
    rows = c.execute(sa.select(*columns).where(*_due(queue, now)).group_by(_MODEL))
    return [Lane(model, since, awaited_since) for model, since, awaited_since in rows]


def _use(c: sa.Connection, queue: str, now: float, sharing: Sharing) -> Mapping[str, tuple[int, float]]:
    """By team: how many jobs run now, and the seconds of workers within the window."""
    held = sa.select(_MODEL, sa.func.count()).where(job.c.queue == queue, job.c.state == RUNNING).group_by(_MODEL)
    running: Counter[str] = Counter()
    for model, count in c.execute(held):
        running[sharing.team(model)] += count
    used: dict[str, float] = {}
    for model, seconds in c.execute(_seconds(queue, now, now - sharing.window_s)):
        used[sharing.team(model)] = used.get(sharing.team(model), 0.0) + float(seconds)
    return {team: (running[team], used.get(team, 0.0)) for team in {*running, *used}}


def _seconds(queue: str, now: float, since: float) -> sa.Select[Any]:
    model = sa.func.coalesce(job_run.c.model, "")
    begun = sa.case((job_run.c.begun_at > since, job_run.c.begun_at), else_=since)
    ended = sa.func.coalesce(job_run.c.ended_at, now)
    in_window = job_run.c.queue == queue, sa.or_(job_run.c.ended_at.is_(None), job_run.c.ended_at > since)
    return sa.select(model, sa.func.sum(ended - begun)).where(*in_window).group_by(model)


def _awaited_last(c: sa.Connection, queue: str) -> bool:
    """Whether the last start on the queue was taken before its turn."""
    ordered = job_run.c.begun_at.desc(), job_run.c.job, job_run.c.epoch.desc()
    told = sa.select(job_run.c.awaited).where(job_run.c.queue == queue, job_run.c.awaited.is_not(None))
    return bool(c.execute(told.order_by(*ordered).limit(1)).scalar())
