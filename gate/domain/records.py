"""What passes between the parts and the ledger, beside the documents that are signed: values without a will of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.glass import BrokenGlass
from gate.domain.reopening import Against
from gate.domain.revocation import Revocation
from gate.domain.verdict import Review
from gate.domain.waiver import Waiver


@dataclass(frozen=True, slots=True)
class Claim:
    """A job held by this worker until its lease ends; every write is conditional on ``epoch``.

    ``trace`` is the W3C traceparent under which it was asked for, where that was traced.
    """

    key: str
    kind: str
    payload: Mapping[str, Any]
    epoch: int
    attempts: int
    outages: int = 0
    trace: str | None = None


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
    """Something to be done outside the database: ``doorbell`` or ``project`` (write a verdict to the registry).

    Its payload's ``trace`` is the traceparent of what it belongs to, or ``None``.
    """

    seq: int
    kind: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is waiting: jobs by queue and state, seconds the oldest queued job of a queue has waited,
    running jobs whose lease has ended, and unsent outbox items by kind."""

    jobs: Mapping[tuple[str, str], int]
    oldest_s: Mapping[str, float]
    expired_leases: int
    outbox: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """How values are spread: for each upper bound how many are at most that, and the number and sum of all."""

    at_most: Mapping[float, int]
    count: int
    total: float


@dataclass(frozen=True, slots=True)
class TracedVerdict:
    """A verdict of late whose trace was recorded: when it came (Unix seconds), after how many seconds, the trace's id."""

    at: float
    seconds: float
    trace_id: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """What has happened since the ledger was made, each thing counted once, and what was last seen outside.

    Times are in seconds. ``runs`` goes by kind and outcome, ``waits`` and ``compute_s`` by queue, ``run_seconds`` by
    kind, ``outcomes`` and ``would_be`` (verdicts under a policy in dry run) by outcome, ``facts`` by their kind,
    ``controls`` (planted candidates) by control and what they showed, ``waivers`` by their state; ``waiver_expiry`` is when
    the first of those granted ends. ``glasses`` are the broken ones that are in force, unreviewed, and overdue for it.
    ``traces`` are of some verdicts of late.
    """

    runs: Mapping[tuple[str, str], int]
    waits: Mapping[str, Tally]
    run_seconds: Mapping[str, Tally]
    compute_s: Mapping[str, float]
    outcomes: Mapping[str, int]
    would_be: Mapping[str, int]
    to_verdict: Tally
    basin_positions: Tally
    oldest_open_s: float
    facts: Mapping[str, int]
    figures: Mapping[str, float]
    traces: Sequence[TracedVerdict] = ()
    controls: Mapping[tuple[str, str], int] = field(default_factory=dict)
    waivers: Mapping[str, int] = field(default_factory=dict)
    waiver_expiry: float | None = None
    glasses: Mapping[str, int] = field(default_factory=dict)


class WaiverState(StrEnum):
    """What became of a waiver; only one that is granted, and has not expired, counts."""

    REQUESTED = "requested"
    GRANTED = "granted"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class KeptWaiver:
    """A waiver as the ledger keeps it: whether its rule was critical when it was asked for, its signed document once a
    worker has signed it, and why it was ended before its time."""

    waiver: Waiver
    state: WaiverState
    critical: bool
    envelope: Mapping[str, Any] | None = None
    ended_because: str | None = None


@dataclass(frozen=True, slots=True)
class KeptGlass:
    """A broken glass as the ledger keeps it: over which evaluation, whether a worker has signed the approval, whether that
    has ended, and what somebody else said of it afterwards."""

    id: int
    evaluation: str
    request: EvaluationRequest
    glass: BrokenGlass
    signed: bool
    ended: bool
    review: Review | None

    @property
    def unreviewed(self) -> bool:
        """Whether somebody still has to review it; one that was never signed let nothing through."""
        return self.review is None and (self.signed or not self.ended)


@dataclass(frozen=True, slots=True)
class SignedRevocation:
    """An approval taken back, with the envelope that proves it to readers without the ledger."""

    version: ModelVersion
    revocation: Revocation
    envelope: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """What the ledger keeps of the evaluation that speaks for a version: its key, how it ended, and the signed summary of
    its verdict where there is one. ``written``: it has ended, and that was written to the registry. ``against`` is what its
    verdict was measured against, where it was measured."""

    key: str
    outcome: str | None
    written: bool
    summary: Mapping[str, Any] | None
    against: Against | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the record of who did what; ``detail`` is the JSON text that ``hash`` covers, with ``previous``."""

    seq: int
    at: float
    event: str
    actor: str
    detail: str
    previous: str
    hash: str
