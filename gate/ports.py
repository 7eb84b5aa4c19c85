"""What the gate needs of the outside, as protocols; each has one adapter in ``gate.adapters``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import BasinProfile, Evidence
from gate.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Claim:
    """A job held by this worker until its lease ends; every write is conditional on ``epoch``."""

    key: str
    kind: str
    payload: Mapping[str, Any]
    epoch: int
    attempts: int


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to be there once: ``key`` makes it unique, ``waits_for`` names a job that must end first."""

    key: str
    kind: str
    queue: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """Something to be done outside the database: ``doorbell`` or ``project`` (write a verdict to the registry)."""

    seq: int
    kind: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """An evaluation as the ledger tells it: state is ``requested|inspecting|measuring|judging|done``."""

    request: EvaluationRequest
    state: str
    stage: str
    progress: float
    evidence_key: str | None
    outcome: str | None
    reason: str | None
    run_id: str | None
    created_at: float
    updated_at: float
    projected: bool


class Registry(Protocol):
    """The model registry (MLflow): what exists, and the writing of verdicts."""

    def version(self, name: str, version: str) -> ModelVersion: ...

    def versions(self, since_ms: int = 0) -> Iterable[ModelVersion]: ...

    def aliases(self) -> Mapping[tuple[str, str], str]: ...

    def fetch(self, version: ModelVersion, into: Path) -> Path: ...


class Signer(Protocol):
    """Signs bytes of a type into a DSSE envelope (a JSON-ready mapping)."""

    def sign(self, payload: bytes, payload_type: str) -> Mapping[str, Any]: ...


class Queue(Protocol):
    """Rings a worker's doorbell for a job; may be lost, may be doubled."""

    def ring(self, queue: str, kind: str, key: str) -> None: ...


class Ledger(Protocol):
    """What was asked, measured and decided. One transaction per call."""

    def accept_delivery(
        self, delivery_id: str, body_digest: str, body: bytes, request: EvaluationRequest | None, now: float
    ) -> bool: ...

    def request_evaluation(self, request: EvaluationRequest, now: float) -> bool: ...

    def enqueue(self, jobs: Sequence[JobRequest], now: float) -> None: ...

    def claim(self, key: str, owner: str, lease_s: float, now: float) -> Claim | None: ...

    def renew(self, claim: Claim, lease_s: float, now: float, progress: Mapping[str, Any] | None = None) -> None: ...

    def finish(
        self, claim: Claim, now: float, *, result: Mapping[str, Any] | None = None, then: Sequence[JobRequest] = ()
    ) -> None: ...

    def wait(self, claim: Claim, now: float, needs: JobRequest) -> None: ...

    def retry(self, claim: Claim, now: float, *, error: str, delay_s: float) -> None: ...

    def fail(self, claim: Claim, now: float, *, error: str, then: Sequence[JobRequest] = ()) -> None: ...

    def sweep(self, now: float, *, ring_after_s: float, max_attempts: int) -> int: ...

    def job_result(self, key: str) -> tuple[str, Mapping[str, Any] | None, str | None] | None: ...

    def outbox(self, now: float, limit: int = 100) -> Sequence[OutboxItem]: ...

    def outbox_done(self, seq: int, now: float) -> None: ...

    def outbox_later(self, seq: int, now: float, delay_s: float, error: str) -> None: ...

    def note(self, key: str, now: float, **fields: Any) -> None: ...

    def save_evidence(self, claim: Claim, evidence: Evidence, now: float) -> None: ...

    def evidence(self, key: str) -> Evidence | None: ...

    def save_profile(self, claim: Claim, profile: BasinProfile, now: float) -> None: ...

    def profile(self, key: str) -> BasinProfile | None: ...

    def save_verdict(
        self, claim: Claim, key: str, verdict: Verdict, envelope: Mapping[str, Any], now: float
    ) -> None: ...

    def verdict(self, key: str) -> tuple[Verdict, Mapping[str, Any]] | None: ...

    def evaluation(self, key: str) -> EvaluationRow | None: ...

    def evaluations(self, limit: int = 100, offset: int = 0) -> Sequence[EvaluationRow]: ...

    def evaluation_of(self, identity: str, policy_digest: str) -> EvaluationRow | None: ...

    def save_base(self, base: Base, now: float) -> None: ...

    def bases(self) -> Sequence[Base]: ...

    def audit(self, event: str, actor: str, detail: Mapping[str, Any], now: float) -> None: ...
