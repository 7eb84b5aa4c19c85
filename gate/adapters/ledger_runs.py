"""The record of every run of every job: how long it waited, how long it took, how it ended. Written once each.

A run is known by its job and epoch, so whatever crashes, restarts or reports twice, it is counted once.
"""

from typing import Any

import sqlalchemy as sa

from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import job_run

DONE, FAILED, WAITS, RETRIED = "done", "failed", "waits", "retried"
PUT_OFF, LOST, OUT_OF_MEMORY = "put_off", "lost", "out_of_memory"
OUTCOMES = (DONE, FAILED, WAITS, RETRIED, PUT_OFF, LOST, OUT_OF_MEMORY)

_SIGNS_OF_NO_MEMORY = ("memoryerror", "out of memory", "can't allocate memory")


def begin(c: sa.Connection, job: sa.Row[Any], now: float, awaited: bool | None) -> None:
    """Records that a job was claimed. A run before it that never told its end was lost."""
    if job.epoch > 1:
        _close(c, LOST, now, job_run.c.job == job.key)
    row = {
        "job": job.key,
        "epoch": job.epoch,
        "kind": job.kind,
        "queue": job.queue,
        "queued_at": job.queued_at,
        "model": job.model,
        "awaited": awaited,
        "begun_at": now,
    }
    insert_new(c, job_run, row)


def end(c: sa.Connection, job: str, epoch: int, outcome: str, now: float, error: str | None = None) -> None:
    """Records how a run ended; the first ending stands."""
    told = OUT_OF_MEMORY if error is not None and outcome != LOST and _tells_of_memory(error) else outcome
    _close(c, told, now, job_run.c.job == job, job_run.c.epoch == epoch)


def begun_at(c: sa.Connection, job: str, epoch: int) -> float:
    """When a run began, in Unix seconds."""
    which = job_run.c.job == job, job_run.c.epoch == epoch
    return float(c.execute(sa.select(job_run.c.begun_at).where(*which)).scalar_one())


def _close(c: sa.Connection, outcome: str, now: float, *which: sa.ColumnElement[bool]) -> None:
    still_open = sa.update(job_run).where(*which, job_run.c.outcome.is_(None))
    c.execute(still_open.values(outcome=outcome, ended_at=now))


def _tells_of_memory(error: str) -> bool:
    """Whether an error says that the memory of the device or of the host was exhausted.

    >>> _tells_of_memory("OutOfMemoryError: CUDA out of memory"), _tells_of_memory("Unavailable: MLflow")
    (True, False)
    """
    return any(sign in error.lower() for sign in _SIGNS_OF_NO_MEMORY)
