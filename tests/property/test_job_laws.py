"""Laws of the job table under any sequence of claims, crashes, late writes and sweeps."""

import shutil
import tempfile
from pathlib import Path

import sqlalchemy as sa
from databases import sqlite_file
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from gate.adapters.database import Database
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import LostLease
from gate.domain.records import Claim, JobRequest

# A job may wait only for an earlier letter, as the product's jobs wait only for an earlier stage.
KEYS = "abcd"
LEASE_S = 10.0
MAX_ATTEMPTS = 3

pairs = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)).filter(lambda pair: pair[0] < pair[1])


def a_job(key: str, waits_for: str | None = None) -> JobRequest:
    return JobRequest(key, "measure", "gpu", {}, waits_for)


class JobLaws(RuleBasedStateMachine):
    """Beside the ledger a model: who holds which job, and which are done."""

    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        migrate(sqlite_file(self.folder))
        self.ledger = SqlLedger(sqlite_file(self.folder))
        self.database = Database(sqlite_file(self.folder))
        self.now = 1000.0
        self.holders: dict[str, Claim] = {}
        self.done: set[str] = set()

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        self.work_off()
        self.ledger.close()
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(key=st.sampled_from(KEYS))
    def ask(self, key: str) -> None:
        self.ledger.enqueue([a_job(key)], self.now)

    @rule(pair=pairs)
    def ask_after_another(self, pair: tuple[str, str]) -> None:
        self.ledger.enqueue([a_job(pair[1], waits_for=pair[0])], self.now)

    @rule(seconds=st.sampled_from([0.5, LEASE_S / 2, LEASE_S * 2]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=claims, key=st.sampled_from(KEYS))
    def claim(self, key: str) -> object:
        held = self.holders.get(key)
        claim = self.ledger.claim(key, "worker", LEASE_S, self.now)
        if claim is None:
            return multiple()
        assert key not in self.done, "a finished job ran again"
        assert held is None or held.epoch < claim.epoch, "two holders under one epoch"
        self.holders[key] = claim
        return claim

    @rule(claim=claims)
    def finish(self, claim: Claim) -> None:
        if self.writes(claim, lambda: self.ledger.finish(claim, self.now)):
            self.done.add(claim.key)
            del self.holders[claim.key]

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        if self.writes(claim, lambda: self.ledger.fail(claim, self.now, error="broken")):
            del self.holders[claim.key]

    @rule(claim=claims, outage=st.booleans())
    def put_off(self, claim: Claim, outage: bool) -> None:
        if self.writes(claim, lambda: self.ledger.retry(claim, self.now, error="busy", delay_s=1.0, outage=outage)):
            del self.holders[claim.key]

    @rule(claim=claims, keys=st.lists(st.sampled_from(KEYS), min_size=1, unique=True))
    def wait(self, claim: Claim, keys: list[str]) -> None:
        needs = [a_job(key) for key in keys if key < claim.key]
        if needs and self.writes(claim, lambda: self.ledger.wait(claim, self.now, *needs)):
            del self.holders[claim.key]

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        self.writes(claim, lambda: self.ledger.renew(claim, LEASE_S, self.now))

    @rule()
    def sweep(self) -> None:
        self.ledger.sweep(self.now, ring_after_s=0.0, max_attempts=MAX_ATTEMPTS)
        running = self.keys("state = 'running'")
        self.holders = {key: claim for key, claim in self.holders.items() if key in running}

    @rule()
    def ring_the_doorbells(self) -> None:
        for item in self.ledger.outbox(self.now):
            self.ledger.outbox_done(item.seq, self.now)

    @invariant()
    def nobody_waits_for_what_has_ended(self) -> None:
        if hasattr(self, "folder"):
            ended = "SELECT key FROM job WHERE state IN ('done', 'failed')"
            assert self.keys(f"state = 'waiting' AND waits_for IN ({ended})") == set()

    def writes(self, claim: Claim, write: object) -> bool:
        """Writes under a claim; it must be taken exactly when the claim is the job's holder's."""
        holds = self.holders.get(claim.key) == claim
        try:
            write()
        except LostLease:
            assert not holds, "the holder's write was refused"
            return False
        assert holds, "a write was taken from somebody who lost the job"
        return True

    def keys(self, condition: str) -> set[str]:
        query = sa.text(f"SELECT key FROM job WHERE {condition}")
        return set(self.database.read(lambda c: c.execute(query).scalars().all()))

    def work_off(self) -> None:
        """Whatever happened before, workers that answer doorbells bring every job to its end."""
        for _ in range(3 * len(KEYS)):
            self.now += 1000.0
            self.sweep()
            for item in self.ledger.outbox(self.now):
                self.ledger.outbox_done(item.seq, self.now)
                claim = self.ledger.claim(item.payload["key"], "worker", LEASE_S, self.now)
                if claim is not None:
                    assert claim.key not in self.done, "a finished job ran again"
                    self.ledger.finish(claim, self.now)
        assert self.keys("state NOT IN ('done', 'failed')") == set(), "a job is stuck"


JobLaws.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestJobLaws = JobLaws.TestCase
