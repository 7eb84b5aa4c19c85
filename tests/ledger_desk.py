"""A ledger on a desk: what a worker does with it, with a clock that ticks once a look."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import sqlalchemy as sa
from builders import a_checkpoint, a_verdict, a_version, an_evidence

from gate.adapters.database import Database
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.checkpoint import Base
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import BasinProfile
from gate.domain.jobs import GPU_QUEUE, MEASURE, inspect_key, judge_key
from gate.domain.records import Claim, JobRequest

REQUEST = EvaluationRequest.of(a_version(), "default", "d" * 64)
INSPECT, JUDGE = inspect_key(REQUEST.key), judge_key(REQUEST.key)
EVIDENCE = an_evidence()
LEASE_S = 60.0


@dataclass
class Desk:
    """A ledger with a clock that ticks once a look."""

    ledger: SqlLedger
    url: str
    ticks: Iterator[int] = field(default_factory=lambda: count(1000))

    @classmethod
    def at(cls, url: str) -> "Desk":
        """A new ledger at that URL."""
        migrate(url)
        return cls(SqlLedger(url), url)

    @property
    def now(self) -> float:
        return float(next(self.ticks))

    def claimed(self, key: str, owner: str = "worker") -> Claim:
        claim = self.ledger.claim(key, owner, LEASE_S, self.now)
        assert claim is not None, self.ledger.job_result(key)
        return claim

    def state(self, key: str) -> str:
        result = self.ledger.job_result(key)
        assert result is not None
        return result[0]

    def doorbells(self) -> list[str]:
        return [i.payload["key"] for i in self.ledger.outbox(self.now) if i.kind == "doorbell"]

    def projections(self) -> list[str]:
        return [i.payload["evaluation"] for i in self.ledger.outbox(self.now) if i.kind == "project"]

    def clear_outbox(self) -> None:
        for item in self.ledger.outbox(self.now + 1e6):
            self.ledger.outbox_done(item.seq, self.now)


def a_job(key: str, waits_for: str | None = None, **payload: Any) -> JobRequest:
    return JobRequest(key, MEASURE, GPU_QUEUE, payload, waits_for)


def run_sql(url: str, statement: str) -> None:
    database = Database(url)
    try:
        database.write(lambda c: c.execute(sa.text(statement)))
    finally:
        database.close()


def judged(desk: Desk) -> Claim:
    """Brings the request to its verdict."""
    desk.ledger.request_evaluation(REQUEST, desk.now)
    desk.ledger.finish(desk.claimed(INSPECT), desk.now)
    claim = desk.claimed(JUDGE)
    desk.ledger.save_verdict(claim, REQUEST.key, a_verdict(), {"payload": "x"}, desk.now)
    desk.ledger.renew(claim, 1e6, desk.now)
    return claim


def a_base(digest: str) -> Base:
    return Base(name="base", digest=digest, source="models:/base/1", suite="staged", checkpoint=a_checkpoint())


def a_profile() -> BasinProfile:
    return BasinProfile(
        base_digest="b" * 64,
        suite_digest="c" * 64,
        plan_digest="e" * 64,
        parameters=10,
        weight_norm=1.5,
        capabilities=(),
        gradients_sha256=None,
        seed=1,
        provenance={},
        seconds=0.5,
    )
