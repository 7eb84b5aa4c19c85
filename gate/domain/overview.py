"""Evaluations as people look at them: how far each is, a page of many, and the jobs at work on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.domain.evaluation import EvaluationRequest
from gate.domain.records import KeptWaiver


@dataclass(frozen=True, slots=True)
class Narrowing:
    """How sure a comparison with the base is so far: the change of a capability's score with its interval, the loss
    that is allowed, and how many of its items were used. The interval holds whenever it is looked at."""

    capability: str
    value: float
    lower: float
    upper: float
    margin: float
    used: int
    of: int


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """An evaluation as the ledger tells it: state is ``requested|inspecting|measuring|judging|done``.

    State, stage and progress follow from the jobs at work, so they cannot go stale. ``reason`` is the verdict's
    once done; before that the last error of the job at work, if it had one. ``outcome`` without a stored verdict
    is ``error``: the judging itself failed for good. ``narrowing`` is what the job at work compared so far. ``trace_id`` (32 hex digits) is of the trace from its delivery to
    its verdict, where that was recorded.
    """

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
    trace_id: str | None = None
    narrowing: Sequence[Narrowing] = ()


@dataclass(frozen=True, slots=True)
class FleetQuery:
    """Which evaluations to show: of one outcome (``open`` for none yet), of models whose name holds a text, of one base;
    with ``standing`` without those that another took the place of, because their base or suite changed.

    ``sort`` is ``newest|oldest|name|farthest``; ``after`` is the place that the page before ended at.
    """

    outcome: str | None = None
    text: str = ""
    base_digest: str | None = None
    standing: bool = False
    sort: str = "newest"
    after: Sequence[Any] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class FleetRow:
    """An evaluation with its place in its base's basin (1 is the edge) and its largest loss of score, where known."""

    evaluation: EvaluationRow
    basin_position: float | None
    worst_change: float | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """A page of evaluations, where the next one begins (``None`` at the end), and how many there are by outcome."""

    rows: Sequence[FleetRow]
    next: Sequence[Any] | None
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class JobAtWork:
    """A job that is queued or held: by whom, since when it was due, until when it is held, its stage and progress."""

    key: str
    kind: str
    queue: str
    state: str
    owner: str | None
    attempts: int
    queued_at: float
    lease_until: float | None
    stage: str
    fraction: float
    error: str | None


@dataclass(frozen=True, slots=True)
class PolicyUse:
    """What one text of a policy, known by its digest, was asked to judge: since when, and how it ended, by outcome, with
    ``open`` for what has not ended."""

    policy: str
    digest: str
    since: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WaiverQuery:
    """Which waivers to show, as they stand at a time: ``in_force``, ``waiting`` for approval, ``ended``, or all of them."""

    at: float
    standing: str | None = None
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class WaiverPage:
    """A page of waivers, whether more come after it, and how many there are by how they stand."""

    rows: Sequence[KeptWaiver]
    more: bool
    counts: Mapping[str, int]
