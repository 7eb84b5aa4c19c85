"""The ledger on SQL: SQLite inside one host, PostgreSQL for a cluster. Each method is one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import (
    ledger_audit,
    ledger_controls,
    ledger_evaluations,
    ledger_fleet,
    ledger_glass,
    ledger_history,
    ledger_jobs,
    ledger_outbox,
    ledger_records,
    ledger_schedule,
    ledger_statistics,
    ledger_superseding,
    ledger_tallies,
    ledger_waivers,
)
from gate.adapters.database import Database, insert_new
from gate.adapters.ledger_tables import DONE, FAILED, evaluation, lease
from gate.adapters.sql_decisions import SqlDecisions
from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.evaluation import EvaluationRequest, evaluation_key
from gate.domain.evidence import BasinProfile, Evidence
from gate.domain.jobs import CPU_QUEUE, INSPECT, JUDGE, inspect_key, judge_key
from gate.domain.overview import EvaluationRow, Fleet, FleetQuery, JobAtWork, PolicyUse
from gate.domain.prompts import NO_PROMPTS, ChangedPrompts
from gate.domain.records import (
    AuditEntry,
    Backlog,
    Claim,
    JobRequest,
    Kept,
    OutboxItem,
    Statistics,
)
from gate.domain.rehearsal import Judged
from gate.domain.scheduling import Sharing
from gate.domain.selfcheck import ControlResult
from gate.domain.verdict import Verdict


def migrate(url: str) -> None:
    """Brings the schema of the ledger at ``url`` up to date; safe to run from several processes at once."""
    database = Database(url)
    try:
        database.migrate()
        # A history from before there were sums is counted now, not at each scrape until the sweep has come through it.
        while database.write(ledger_tallies.count):
            pass
    finally:
        database.close()


class SqlLedger(SqlDecisions):
    """Implements ``gate.ports.Ledger``; what each method promises is said there."""

    def __init__(self, url: str) -> None:
        super().__init__(Database(url))
        self._facts = ledger_statistics.Facts()

    def close(self) -> None:
        """Closes every pooled connection."""
        self._database.close()

    def ping(self) -> None:
        self._database.read(lambda c: c.execute(sa.select(evaluation.c.key).limit(1)).first())

    def accept_delivery(
        self, delivery_id: str, body_digest: str, body: bytes, request: EvaluationRequest | None, now: float
    ) -> bool:
        def work(c: sa.Connection) -> bool:
            key = request.key if request else None
            new = ledger_evaluations.keep_delivery(c, delivery_id, body_digest, body, key, now)
            return _request(c, request, now) if request else new

        return self._database.write(work)

    def request_evaluation(self, request: EvaluationRequest, now: float) -> bool:
        return self._database.write(lambda c: _request(c, request, now))

    def enqueue(self, jobs: Sequence[JobRequest], now: float) -> None:
        self._database.write(lambda c: ledger_jobs.enqueue(c, jobs, now))

    def claim(self, key: str, owner: str, lease_s: float, now: float) -> Claim | None:
        return self._database.write(lambda c: ledger_jobs.claim(c, key, owner, lease_s, now))

    def claim_next(self, rung: str, owner: str, lease_s: float, now: float, sharing: Sharing) -> Claim | None:
        return self._database.write(lambda c: ledger_schedule.claim_next(c, rung, owner, lease_s, now, sharing))

    def await_verdict(self, key: str, now: float) -> None:
        self._database.write(lambda c: ledger_schedule.await_verdict(c, key, now))

    def renew(self, claim: Claim, lease_s: float, now: float, progress: Mapping[str, Any] | None = None) -> None:
        self._database.write(lambda c: ledger_jobs.renew(c, claim, lease_s, now, progress))

    def finish(
        self, claim: Claim, now: float, *, result: Mapping[str, Any] | None = None, then: Sequence[JobRequest] = ()
    ) -> None:
        self._database.write(lambda c: ledger_jobs.end(c, claim, now, state=DONE, result=result, then=then))

    def wait(self, claim: Claim, now: float, *needs: JobRequest, progress: Mapping[str, Any] | None = None) -> None:
        self._database.write(lambda c: ledger_jobs.wait(c, claim, needs, now, progress))

    def retry(self, claim: Claim, now: float, *, error: str, delay_s: float, outage: bool = False) -> None:
        self._database.write(lambda c: ledger_jobs.retry(c, claim, now, error=error, delay_s=delay_s, outage=outage))

    def fail(self, claim: Claim, now: float, *, error: str, then: Sequence[JobRequest] = ()) -> None:
        self._database.write(lambda c: ledger_jobs.end(c, claim, now, state=FAILED, error=error, then=then))

    def abandon(self, owner: str, now: float, *, error: str, max_attempts: int) -> bool:
        return self._database.write(lambda c: ledger_jobs.abandon(c, owner, now, error, max_attempts))

    def sweep(self, now: float, *, ring_after_s: float, max_attempts: int) -> int:
        def work(c: sa.Connection) -> int:
            ledger_outbox.forget(c, now)
            ledger_tallies.count(c)
            ledger_waivers.expire(c, now)
            ledger_glass.expire(c, now)
            projected = ledger_evaluations.project_again(c, now)
            return projected + ledger_jobs.sweep(c, now, ring_after_s, max_attempts)

        return self._database.write(work)

    def due(self, queue: str, now: float, limit: int = 10) -> Sequence[str]:
        return self._database.read(lambda c: ledger_jobs.due(c, queue, now, limit))

    def leave_queues(self, known: Sequence[str], into: str, now: float) -> int:
        return self._database.write(lambda c: ledger_jobs.leave_queues(c, known, into, now))

    def cancel_superseded(self, now: float) -> int:
        return self._database.write(lambda c: ledger_superseding.cancel(c, now))

    def job_result(self, key: str) -> tuple[str, Mapping[str, Any] | None, str | None] | None:
        return self._database.read(lambda c: ledger_jobs.outcome(c, key))

    def job_results(self, keys: Sequence[str]) -> Mapping[str, tuple[str, Mapping[str, Any] | None, str | None]]:
        return self._database.read(lambda c: ledger_jobs.outcomes(c, keys))

    def backlog(self, now: float) -> Backlog:
        def work(c: sa.Connection) -> Backlog:
            return Backlog(
                jobs=ledger_jobs.counts(c),
                oldest_s=ledger_jobs.oldest(c, now),
                expired_leases=ledger_jobs.expired_leases(c, now),
                outbox=ledger_outbox.outstanding(c),
            )

        return self._database.read(work)

    def statistics(self, now: float) -> Statistics:
        return self._database.read(lambda c: ledger_statistics.statistics(c, self._facts, now))

    def keep_figures(self, figures: Mapping[str, float | None], now: float) -> None:
        self._database.write(lambda c: ledger_statistics.keep(c, figures, now))

    def outbox(self, now: float, limit: int = 100) -> Sequence[OutboxItem]:
        return self._database.read(lambda c: ledger_outbox.due(c, now, limit))

    def notify(self, subject: str, payload: Mapping[str, Any], now: float) -> None:
        self._database.write(lambda c: ledger_outbox.notify(c, subject, payload, now))

    def notices(self, now: float, limit: int = 20) -> Sequence[OutboxItem]:
        return self._database.read(lambda c: ledger_outbox.notices(c, now, limit))

    def outbox_done(self, seq: int, now: float) -> None:
        self._database.write(lambda c: ledger_outbox.done(c, seq, now))

    def outbox_later(self, seq: int, now: float, delay_s: float, error: str) -> None:
        self._database.write(lambda c: ledger_outbox.later(c, seq, now, delay_s, error))

    def project(self, key: str, now: float) -> None:
        self._database.write(lambda c: ledger_outbox.project(c, key, now))

    def note(
        self,
        key: str,
        now: float,
        *,
        claim: Claim | None = None,
        evidence_key: str | None = None,
        run_id: str | None = None,
        base: Base | None = None,
    ) -> None:
        of_base = {"base_name": base.name, "suite_digest": base.suite_digest} if base else {}

        def work(c: sa.Connection) -> None:
            if claim is not None:
                ledger_jobs.hold(c, claim)
            ledger_evaluations.note(c, key, now, evidence_key=evidence_key, run_id=run_id, **of_base)

        self._database.write(work)

    def save_evidence(self, claim: Claim, evidence: Evidence, now: float, prompts: ChangedPrompts = NO_PROMPTS) -> None:
        def work(c: sa.Connection) -> None:
            ledger_jobs.hold(c, claim)
            ledger_records.save_evidence(c, claim, evidence, now)
            ledger_records.save_prompts(c, evidence.key, prompts)

        self._database.write(work)

    def evidence(self, key: str) -> Evidence | None:
        return self._database.read(lambda c: ledger_records.evidence_of(c, key))

    def prompts(self, key: str) -> ChangedPrompts | None:
        return self._database.read(lambda c: ledger_records.prompts_of(c, key))

    def save_profile(self, claim: Claim, profile: BasinProfile, now: float) -> None:
        self._held(claim, lambda c: ledger_records.save_profile(c, profile, now))

    def profile(self, key: str) -> BasinProfile | None:
        return self._database.read(lambda c: ledger_records.profile_of(c, key))

    def save_verdict(
        self,
        claim: Claim,
        key: str,
        verdict: Verdict,
        envelope: Mapping[str, Any],
        now: float,
        *,
        dry_run: bool = False,
        basin_position: float | None = None,
    ) -> None:
        def work(c: sa.Connection) -> None:
            ledger_jobs.hold(c, claim)
            ledger_waivers.refuse_ended(c, verdict, now)
            ledger_records.save_verdict(c, key, verdict, envelope, now, dry_run, basin_position)

        self._database.write(work)

    def verdict(self, key: str) -> tuple[Verdict, Mapping[str, Any]] | None:
        return self._database.read(lambda c: ledger_records.verdict_of(c, key))

    def evaluation(self, key: str) -> EvaluationRow | None:
        return self._database.read(lambda c: ledger_evaluations.one(c, key))

    def evaluations(self, limit: int = 100, offset: int = 0, name: str | None = None) -> Sequence[EvaluationRow]:
        return self._database.read(lambda c: ledger_evaluations.listing(c, limit, offset, name))

    def fleet(self, query: FleetQuery) -> Fleet:
        return self._database.read(lambda c: ledger_fleet.fleet(c, query))

    def at_work(self, limit: int = 200) -> Sequence[JobAtWork]:
        return self._database.read(lambda c: ledger_fleet.at_work(c, limit))

    def profiles(self, base_digest: str) -> Sequence[BasinProfile]:
        return self._database.read(lambda c: ledger_fleet.profiles(c, base_digest))

    def policy_uses(self) -> Sequence[PolicyUse]:
        return self._database.read(ledger_fleet.policy_uses)

    def evaluation_of(self, identity: str, policy_digest: str) -> EvaluationRow | None:
        root = evaluation_key(identity, policy_digest)
        return self._database.read(lambda c: ledger_evaluations.newest_of(c, root))

    def kept(self, roots: Sequence[str]) -> Mapping[str, Kept]:
        return self._database.read(lambda c: ledger_evaluations.kept(c, roots))

    def save_base(self, base: Base, now: float) -> None:
        self._database.write(lambda c: ledger_records.save_base(c, base, now))

    def bases(self) -> Sequence[Base]:
        return self._database.read(ledger_records.bases)

    def save_promotion(self, alias: str, version: ModelVersion, now: float) -> None:
        self._database.write(lambda c: ledger_records.save_promotion(c, alias, version, now))

    def promotion(self, name: str, alias: str) -> ModelVersion | None:
        return self._database.read(lambda c: ledger_records.promotion_of(c, name, alias))

    def judged_since(self, since: float, name: str | None = None) -> Iterator[Judged]:
        return ledger_history.judged_since(self._database, since, name)

    def save_control(self, claim: Claim, result: ControlResult, now: float) -> None:
        self._held(claim, lambda c: ledger_controls.save(c, claim, result, now))

    def control(self, key: str) -> ControlResult | None:
        return self._database.read(lambda c: ledger_controls.result_of(c, key))

    def checked_since(self, prefix: str) -> float | None:
        return self._database.read(lambda c: ledger_controls.checked_since(c, prefix))

    def audit(self, event: str, actor: str, detail: Mapping[str, Any], now: float) -> None:
        self._database.write(lambda c: ledger_audit.append(c, event, actor, detail, now))

    def audit_break(self) -> int | None:
        return self._database.read(ledger_audit.first_break)

    def audit_entries(self, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]:
        return self._database.read(lambda c: ledger_audit.entries(c, after, limit))

    def acquire_leader(self, name: str, owner: str, lease_s: float, now: float) -> bool:
        def work(c: sa.Connection) -> bool:
            if insert_new(c, lease, {"name": name, "owner": owner, "until": now + lease_s}):
                return True
            mine_or_over = sa.or_(lease.c.owner == owner, lease.c.until < now)
            taken = sa.update(lease).where(lease.c.name == name, mine_or_over)
            return c.execute(taken.values(owner=owner, until=now + lease_s)).rowcount == 1

        return self._database.write(work)


def _request(c: sa.Connection, request: EvaluationRequest, now: float) -> bool:
    """Adds an evaluation with its first job, and its last: whatever fails in between, it will be judged."""
    if not ledger_evaluations.add(c, request, now):
        return False
    payload = {"evaluation": request.key}
    inspect = JobRequest(inspect_key(request.key), INSPECT, CPU_QUEUE, payload)
    judge = JobRequest(judge_key(request.key), JUDGE, CPU_QUEUE, payload, waits_for=inspect.key)
    ledger_jobs.enqueue(c, [inspect, judge], now, model=request.version.name)
    detail = {"evaluation": request.key, "subject": request.version.identity, "policy": request.policy}
    if request.occasion is None:
        ledger_audit.append(c, "evaluation requested", "gate", detail, now)
    else:
        ledger_audit.append(c, "verdict opened again", "gate", detail | {"reason": request.occasion.reason}, now)
    return True
