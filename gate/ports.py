"""What the gate needs of the outside, as protocols; each has one adapter in ``gate.adapters``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.enforcement import Action, RunRecord
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import BasinProfile, Evidence
from gate.domain.glass import BrokenGlass
from gate.domain.overview import EvaluationRow, Fleet, FleetQuery, JobAtWork, PolicyUse, WaiverPage, WaiverQuery
from gate.domain.promotion import Holding
from gate.domain.prompts import NO_PROMPTS, ChangedPrompts
from gate.domain.records import (
    AuditEntry,
    Backlog,
    Claim,
    JobRequest,
    Kept,
    KeptGlass,
    KeptWaiver,
    OutboxItem,
    SignedRevocation,
    Statistics,
)
from gate.domain.rehearsal import Judged
from gate.domain.revocation import Revocation
from gate.domain.scheduling import Sharing
from gate.domain.selfcheck import ControlResult
from gate.domain.verdict import Review, Verdict
from gate.domain.waiver import Approval, Waiver


class Registry(Protocol):
    """The model registry (MLflow): what exists, and the writing of verdicts.

    Each method raises ``Unavailable`` when the registry does not answer, ``InvalidInput`` when it refuses.
    """

    def version(self, name: str, version: str) -> ModelVersion:
        """One version as it is now. Raises ``NotFound``."""

    def versions(self, since_ms: int = 0) -> Iterable[ModelVersion]:
        """Versions made at or after a time, newest first."""

    def hidden_versions(self) -> Iterable[ModelVersion]:
        """Versions that the registry's own searches leave out."""

    def versions_page(self, cursor: str) -> tuple[Sequence[ModelVersion], str]:
        """The next versions, oldest first, and where to go on; ``""`` is the beginning and the end."""

    def holdings(self, cursor: str) -> tuple[Mapping[str, Sequence[Holding]], str]:
        """The next registered models with their aliases and stages (the newest version of each stage), and where to
        go on; ``""`` is the beginning and the end."""

    def has_files(self, version: ModelVersion) -> bool:
        """Whether a version that says it is a prompt has artifacts all the same."""

    def alias_of(self, name: str, alias: str) -> str | None:
        """The version number an alias points to."""

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """Every file of a version, in the new folder ``into``."""

    def listing(self, version: ModelVersion) -> Mapping[str, int] | None:
        """Each file of a version with its size in bytes; ``None`` where that cannot be told quickly."""

    def write_run(self, record: RunRecord) -> str:
        """The run that shows an evaluation, written once however often it is asked; its id."""

    def run_url(self, run_id: str) -> str:
        """Where people see a run."""

    def apply(self, version: ModelVersion, actions: Sequence[Action]) -> None:
        """Brings a version to what the actions say; repeating it changes nothing."""

    def ensure_webhook(self, url: str, secret: str, *, renew_secret: bool = False) -> str:
        """Makes sure that the registry tells this gate: ``created``, ``repaired`` or ``kept``."""


class Signer(Protocol):
    """Signs bytes of a type into a DSSE envelope (a JSON-ready mapping)."""

    def sign(self, payload: bytes, payload_type: str) -> Mapping[str, Any]: ...


class Queue(Protocol):
    """Rings a worker's doorbell for a job; may be lost, may be doubled."""

    def ring(self, queue: str, kind: str, key: str) -> None: ...


class Ledger(Protocol):
    """What was asked, measured and decided. One transaction per call; time is always given, never read.

    Each method raises ``Unavailable`` when the database does not answer. A method that takes a claim raises
    ``LostLease`` when the job was given to somebody else since; nothing is written then.
    """

    def ping(self) -> None:
        """Returns if the database answers and carries the ledger's schema."""

    def accept_delivery(
        self, delivery_id: str, body_digest: str, body: bytes, request: EvaluationRequest | None, now: float
    ) -> bool:
        """Keeps a delivery and asks what it asks for; whether that is new (a redelivery asks nothing)."""

    def request_evaluation(self, request: EvaluationRequest, now: float) -> bool:
        """Asks for an evaluation once: its ``inspect`` job, and its ``judge`` job waiting for it; whether it is new."""

    def enqueue(self, jobs: Sequence[JobRequest], now: float) -> None:
        """Makes sure each job is there; one that is done stays done, one that failed is tried anew."""

    def claim(self, key: str, owner: str, lease_s: float, now: float) -> Claim | None:
        """Takes a job that is due or whose holder's lease has ended; ``None`` where there is nothing to do."""

    def claim_next(self, rung: str, owner: str, lease_s: float, now: float, sharing: Sharing) -> Claim | None:
        """Takes the job whose turn it is on the queue of the job ``rung``; ``None`` where nothing is due there."""

    def await_verdict(self, key: str, now: float) -> None:
        """Somebody waits for an evaluation: for a while its jobs come before others, at every other start."""

    def renew(self, claim: Claim, lease_s: float, now: float, progress: Mapping[str, Any] | None = None) -> None:
        """Holds on to a job; ``progress`` is ``{"stage": str, "fraction": float}`` and, while a candidate is
        compared, ``"narrowing"`` with a list of `Narrowing` as mappings."""

    def finish(
        self, claim: Claim, now: float, *, result: Mapping[str, Any] | None = None, then: Sequence[JobRequest] = ()
    ) -> None:
        """Ends a job well. ``then`` is enqueued first, taking the place of a job of that key that waited for this one."""

    def wait(self, claim: Claim, now: float, *needs: JobRequest, progress: Mapping[str, Any] | None = None) -> None:
        """Lets go of a job until the last of ``needs`` that is open (enqueued if absent) has ended, well or not.

        Not counted as an attempt, unless all of them had ended before the job was begun. ``progress`` as for ``renew``.
        """

    def retry(self, claim: Claim, now: float, *, error: str, delay_s: float, outage: bool = False) -> None:
        """Lets go of a job for ``delay_s``; an ``outage`` of something outside is not counted as an attempt."""

    def fail(self, claim: Claim, now: float, *, error: str, then: Sequence[JobRequest] = ()) -> None:
        """Ends a job badly, for good; jobs waiting for it go on, and a failed ``judge`` ends its evaluation in error."""

    def abandon(self, owner: str, now: float, *, error: str, max_attempts: int) -> bool:
        """Gives back at once the job of a worker known to be dead (or fails it after too many attempts)."""

    def sweep(self, now: float, *, ring_after_s: float, max_attempts: int) -> int:
        """Repairs what crashes and lost messages left behind; returns how many things it touched."""

    def due(self, queue: str, now: float, limit: int = 10) -> Sequence[str]:
        """Keys of the jobs of a queue that are due, the longest waiting first."""

    def leave_queues(self, known: Sequence[str], into: str, now: float) -> int:
        """Moves jobs that wait on any other queue than the known ones, which nobody serves any more; how many."""

    def cancel_superseded(self, now: float) -> int:
        """Ends what is open, not begun and waited for by nobody, where a newer version of the model was asked for under
        the same policy; how many. What ends so never gets a verdict."""

    def job_result(self, key: str) -> tuple[str, Mapping[str, Any] | None, str | None] | None:
        """A job's state, result and last error."""

    def job_results(self, keys: Sequence[str]) -> Mapping[str, tuple[str, Mapping[str, Any] | None, str | None]]:
        """The same of each of these jobs that was ever asked for."""

    def backlog(self, now: float) -> Backlog:
        """How much is waiting, for metrics and autoscaling."""

    def statistics(self, now: float) -> Statistics:
        """What has happened so far and what was last seen, for metrics."""

    def keep_figures(self, figures: Mapping[str, float | None], now: float) -> None:
        """Keeps the newest value of what was seen outside the ledger; ``None`` where there is nothing to see."""

    def outbox(self, now: float, limit: int = 100) -> Sequence[OutboxItem]:
        """What is due to be done outside: ``doorbell`` with queue, kind and key; ``project`` with evaluation."""

    def notify(self, subject: str, payload: Mapping[str, Any], now: float) -> None:
        """Asks for a message to be sent to a channel; for one subject once, however often it is asked for."""

    def notices(self, now: float, limit: int = 20) -> Sequence[OutboxItem]:
        """What is due to be sent: ``notify`` with channel, title and body. They are not in ``outbox``."""

    def outbox_done(self, seq: int, now: float) -> None:
        """Marks an item as done; for ``project`` also the evaluation as projected."""

    def outbox_later(self, seq: int, now: float, delay_s: float, error: str) -> None:
        """Puts an item off after a failure."""

    def project(self, key: str, now: float) -> None:
        """Asks for an ended evaluation to be written to the registry (again); once while one is outstanding."""

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
        """Notes on an evaluation which evidence it rests on, which base as it is now it is measured against, or which run
        shows it; under a claim where one is given."""

    def save_evidence(self, claim: Claim, evidence: Evidence, now: float, prompts: ChangedPrompts = NO_PROMPTS) -> None:
        """Keeps evidence under its key; an ``inspect`` job never replaces what is already there.

        ``prompts`` are the texts it holds the digest of; none by default.
        """

    def evidence(self, key: str) -> Evidence | None:
        """The evidence of a key."""

    def prompts(self, key: str) -> ChangedPrompts | None:
        """The texts kept beside the evidence of a key; ``gate.domain.prompts.fitting`` says whether they are its own."""

    def save_profile(self, claim: Claim, profile: BasinProfile, now: float) -> None:
        """Keeps a base's profile under ``gate.domain.jobs.profile_key``."""

    def profile(self, key: str) -> BasinProfile | None:
        """The profile of a key."""

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
        """Keeps an evaluation's verdict for ever (the first one stands) and asks for it to be projected. ``Unavailable``
        where a waiver that it rests on has ended.

        For statistics: whether its policy holds nothing back, and the candidate's largest position in its base's basin.
        """

    def verdict(self, key: str) -> tuple[Verdict, Mapping[str, Any]] | None:
        """An evaluation's verdict and what it was signed into; blocked where it was revoked since."""

    def ask_review(self, key: str, review: Review, now: float) -> None:
        """Keeps a person's decision on an evaluation's verdict and has it signed by its ``review`` job.

        The first one on a verdict stands: another raises ``InvalidInput``, as one on a verdict that was opened again since
        does. Raises ``NotFound`` where there is no verdict.
        """

    def review(self, key: str, verdict_digest: str) -> Review | None:
        """The decision on an evaluation's verdict with that digest, signed or about to be."""

    def reviews(self, key: str) -> Sequence[Review]:
        """Every decision on an evaluation's verdicts, the newest first."""

    def save_review(self, claim: Claim, key: str, verdict: Verdict, envelope: Mapping[str, Any], now: float) -> None:
        """Puts the reviewed verdict in the place of the judged one (kept beside it) and asks for it to be projected."""

    def ask_waiver(self, waiver: Waiver, critical: bool, now: float) -> KeptWaiver:
        """Keeps a waiver that was asked for; asking twice is asking once."""

    def approve_waiver(self, id_: str, approval: Approval, now: float) -> KeptWaiver:
        """Adds one person's approval. With enough of them it is granted, and every verdict on those bytes under that policy
        is judged again by a ``rejudge`` job. Raises ``NotFound``, ``InvalidInput``."""

    def revoke_waiver(self, id_: str, actor: str, reason: str, now: float) -> KeptWaiver:
        """Ends a waiver, or turns a request down; what rested on it is judged again."""

    def sign_waiver(self, claim: Claim, id_: str, envelope: Mapping[str, Any]) -> None:
        """Keeps the signed document of a granted waiver."""

    def waiver(self, id_: str) -> KeptWaiver:
        """A waiver. Raises ``NotFound``."""

    def waivers(self, candidate_digest: str | None = None, limit: int = 100) -> Sequence[KeptWaiver]:
        """Waivers (for these bytes), those in force or asked for first, the first to end before the others."""

    def waiver_page(self, query: WaiverQuery) -> WaiverPage:
        """A page of waivers: those open first, the first to end before the others, then those that ended, the newest first."""

    def replace_verdict(
        self, claim: Claim, key: str, verdict: Verdict, envelope: Mapping[str, Any], now: float
    ) -> None:
        """Puts a verdict judged again from the same evidence in the place of the one before, which is kept."""

    def first_judged_at(self, key: str) -> int | None:
        """When an evaluation's evidence was first judged, in Unix seconds: judging again gives no longer life."""

    def judged(self, key: str) -> tuple[Verdict, Mapping[str, Any]] | None:
        """An evaluation's verdict as ``verdict`` tells it, but for a glass that was broken over it."""

    def break_glass(self, key: str, candidate_digest: str, glass: BrokenGlass, now: float) -> KeptGlass:
        """Keeps that somebody broke the glass over an evaluation's verdict, and has the approval signed by a ``glass`` job.
        Raises ``InvalidInput`` while an earlier one over the same bytes waits for its review, and where the verdict was opened
        again since."""

    def save_glass(self, claim: Claim, id_: int, verdict: Verdict, envelope: Mapping[str, Any], now: float) -> None:
        """Lets the signed approval count until it ends, and asks for it to be projected."""

    def end_glass(self, claim: Claim, id_: int, reason: str, now: float) -> None:
        """Ends a broken glass before its time; what was judged counts again."""

    def review_glass(self, id_: int, review: Review, now: float) -> KeptGlass:
        """Keeps what somebody said of it afterwards. Rejected, it ends now, and a ``glass`` job revokes the approval. The
        first one stands: another raises ``InvalidInput``."""

    def glass(self, id_: int) -> KeptGlass:
        """A broken glass. Raises ``NotFound``."""

    def glasses(self, key: str | None = None, limit: int = 100) -> Sequence[KeptGlass]:
        """Broken glasses (over one evaluation's verdicts), those that wait for a review first, then the newest first."""

    def revoke(self, given: Sequence[SignedRevocation], actor: str, now: float) -> int:
        """Takes approvals back for ever and has what that concerns written to the registry; how many are new."""

    def revocation(self, subject: str, candidate_digest: str | None) -> tuple[Revocation, Mapping[str, Any]] | None:
        """The revocation of a version (by its identity) or of its bytes, and its envelope."""

    def revocations(self) -> Sequence[Revocation]:
        """Every revocation."""

    def versions_of(self, candidate_digest: str) -> Sequence[ModelVersion]:
        """The versions that have a verdict on exactly these bytes."""

    def evaluation(self, key: str) -> EvaluationRow | None:
        """One evaluation."""

    def evaluations(self, limit: int = 100, offset: int = 0, name: str | None = None) -> Sequence[EvaluationRow]:
        """Evaluations, newest first, of all registered models or of one."""

    def fleet(self, query: FleetQuery) -> Fleet:
        """A page of evaluations. Raises ``InvalidInput`` where ``after`` is no place in the order."""

    def at_work(self, limit: int = 200) -> Sequence[JobAtWork]:
        """Jobs held by workers, then those queued, the longest waiting first."""

    def profiles(self, base_digest: str) -> Sequence[BasinProfile]:
        """A base's profiles, newest first."""

    def policy_uses(self) -> Sequence[PolicyUse]:
        """What each text of each policy was asked to judge, by name and digest. Every evaluation is read for it."""

    def evaluation_of(self, identity: str, policy_digest: str) -> EvaluationRow | None:
        """The evaluation that speaks for one registered version under one policy: the last, where it was opened again."""

    def kept(self, roots: Sequence[str]) -> Mapping[str, Kept]:
        """By the key of a version's first evaluation under a policy: what is kept of the one that speaks for it. Versions
        that were never asked for are not among them."""

    def save_base(self, base: Base, now: float) -> None:
        """Onboards a base, or replaces the one of that name."""

    def bases(self) -> Sequence[Base]:
        """The onboarded bases, by name."""

    def save_promotion(self, alias: str, version: ModelVersion, now: float) -> None:
        """Keeps a version as the one that last held a protected alias of its registered model with an approval."""

    def promotion(self, name: str, alias: str) -> ModelVersion | None:
        """The version that last held a protected alias with an approval, as it was then."""

    def judged_since(self, since: float, name: str | None = None) -> Iterator[Judged]:
        """Versions asked for at or after a time that have a verdict, newest first, each with its newest one.

        ``name`` asks for those of one registered model. Read in pages, as they are taken.
        """

    def save_control(self, claim: Claim, result: ControlResult, now: float) -> None:
        """Keeps for ever what became of the planted candidate of a job; no evaluation and no verdict of a version."""

    def control(self, key: str) -> ControlResult | None:
        """What became of the planted candidate of a job."""

    def checked_since(self, prefix: str) -> float | None:
        """Since when each control whose job's key begins so has had an answer; when they were first asked for where one
        has none; ``None`` where they never were."""

    def audit(self, event: str, actor: str, detail: Mapping[str, Any], now: float) -> None:
        """Appends to the hash-chained record of who did what."""

    def audit_break(self) -> int | None:
        """The number of the first audit entry that does not fit its chain; ``None`` when all do."""

    def audit_entries(self, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]:
        """The next audit entries after a number, oldest first."""

    def acquire_leader(self, name: str, owner: str, lease_s: float, now: float) -> bool:
        """Takes or renews a named leadership; whether ``owner`` holds it now."""
