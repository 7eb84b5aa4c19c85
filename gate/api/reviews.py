"""What waits for a person, and what a person decided."""

from typing import Annotated, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gate.api.access import named
from gate.api.breaking import GlassView, view
from gate.api.door import Door, newest_of
from gate.api.samples import SamplesView, samples_of
from gate.domain.attestation import instant
from gate.domain.breaking import refuse_late_review
from gate.domain.checkpoint import Sha256
from gate.domain.errors import NotFound
from gate.domain.overview import EvaluationRow, FleetQuery
from gate.domain.records import KeptGlass
from gate.domain.review import objection, refuse_review, refuse_samples
from gate.domain.verdict import REVIEW_CHARACTERS, Outcome, Review, ReviewDecision

router = APIRouter(prefix="/v1/reviews", tags=["reviews"])


class ReviewAsked(BaseModel):
    """A decision to be made. ``verdict`` is the digest of the verdict that was read: it decides on no other.

    ``items`` are how many more samples of each undecided capability are asked for at most; all there are without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    evaluation: str
    verdict: Sha256
    decision: ReviewDecision
    reason: Annotated[str, Field(min_length=1, max_length=REVIEW_CHARACTERS)]
    items: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _items_of_samples(self) -> Self:
        if self.items is not None and self.decision is not ReviewDecision.MORE_SAMPLES:
            raise ValueError(f"expected items with the decision more_samples alone, found them with {self.decision}")
        return self


class WaitingView(BaseModel):
    """A version that waits for a person. ``approvable`` is false where nothing was measured that one could approve.

    With ``break_glass`` it is that which is to be decided on: whether it was right; ``verdict`` is its digest then.
    """

    model_config = ConfigDict(frozen=True)
    evaluation: str
    subject: str
    policy: str
    reason: str
    since: float
    verdict: str
    approvable: bool
    decided_by: str | None
    break_glass: GlassView | None = None


class ReviewView(BaseModel):
    """A decision that a person made on the verdict with that digest; ``decided_at`` in RFC 3339. ``items`` are the more
    samples that were asked for at most, where somebody said how many."""

    model_config = ConfigDict(frozen=True)
    decision: ReviewDecision
    reviewer: str
    reason: str
    decided_at: str
    verdict: str
    items: int | None = None

    @classmethod
    def of(cls, made: Review) -> "ReviewView":
        """A review as it is shown."""
        return cls(
            decision=made.decision,
            reviewer=made.reviewer,
            reason=made.reason,
            decided_at=instant(made.decided_at),
            verdict=made.verdict_digest,
            items=made.items,
        )


class StandingView(BaseModel):
    """Where a version stands: its verdict now, why it cannot be decided so (``None`` where it can), every decision made on
    its verdicts, and every glass that was broken over them, the newest first. ``decide_on`` is what a decision now is on,
    ``more_samples`` what a reviewer can have compared beside."""

    model_config = ConfigDict(frozen=True)
    evaluation: str
    subject: str
    policy: str
    outcome: Outcome
    reason: str
    verdict: str
    decide_on: str
    not_approvable: str | None
    not_rejectable: str | None
    more_samples: SamplesView
    reviews: tuple[ReviewView, ...]
    broken_glasses: tuple[GlassView, ...]


class ReviewsView(BaseModel):
    """The inbox: broken glasses, then verdicts, the longest waiting first; ``more`` where there are more verdicts."""

    model_config = ConfigDict(frozen=True)
    reviews: tuple[WaitingView, ...]
    more: bool


@router.get("")
def reviews(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> ReviewsView:
    """What needs review: broken glasses, then verdicts, the longest waiting first."""
    door: Door = request.app.state.door
    found = door.ledger.fleet(FleetQuery(outcome="needs_review", standing=True, sort="oldest", limit=limit))
    broken = [_broken(each, door.clock()) for each in door.ledger.glasses(limit=limit) if each.unreviewed]
    rows = [*broken, *(waiting(door, each.evaluation) for each in found.rows)]
    return ReviewsView(reviews=tuple(row for row in rows if row), more=bool(found.next))


@router.post("", status_code=202)
def decide(request: Request, asked: ReviewAsked) -> WaitingView:
    """Approves or rejects a version whose verdict needs review, or the breaking of the glass over one: a worker signs it, and
    the registry then follows. Or asks for more samples: the comparison goes on, and the version is judged again."""
    door: Door = request.app.state.door
    keep(door, asked)
    row = door.ledger.evaluation(asked.evaluation)
    shown = waiting(door, row) if row else None
    if shown is None:
        raise NotFound(f"expected a verdict on evaluation {asked.evaluation}, found none")
    return shown


@router.get("/{name:path}/{version}")
def show(request: Request, name: str, version: str) -> StandingView:
    """Where the newest evaluation of a registered version stands, for whoever is to decide."""
    door: Door = request.app.state.door
    row = newest_of(door, name, version)
    kept = door.ledger.verdict(row.request.key)
    if kept is None:
        raise NotFound(f"expected a verdict on version {version} of {name!r}, found none yet; wait for it")
    verdict, glasses = kept[0], door.ledger.glasses(row.request.key)
    open_ = next((each for each in glasses if each.unreviewed), None)
    return StandingView(
        evaluation=row.request.key,
        subject=row.request.version.uri,
        policy=row.request.policy,
        outcome=verdict.outcome,
        reason=verdict.reason,
        verdict=verdict.digest,
        decide_on=open_.glass.digest if open_ else verdict.digest,
        not_approvable=None if open_ else objection(verdict, ReviewDecision.APPROVE),
        not_rejectable=None if open_ else objection(verdict, ReviewDecision.REJECT),
        more_samples=samples_of(door, row.request.key, verdict),
        reviews=tuple(ReviewView.of(each) for each in door.ledger.reviews(row.request.key)),
        broken_glasses=tuple(view(each, door.clock()) for each in glasses),
    )


def keep(door: Door, asked: ReviewAsked) -> None:
    """Keeps the caller's decision. Raises `Forbidden` for somebody without a name, `InvalidInput` where it may not be."""
    reviewer = named("a review")
    row, kept = door.ledger.evaluation(asked.evaluation), door.ledger.verdict(asked.evaluation)
    if row is None or kept is None:
        raise NotFound(f"expected a verdict on evaluation {asked.evaluation}, found none to review")
    review = Review(
        decision=asked.decision,
        reviewer=reviewer,
        reason=" ".join(asked.reason.split()) or "no reason",
        decided_at=int(door.clock()),
        verdict_digest=asked.verdict,
        items=asked.items,
    )
    tags = row.request.version.tags
    glass = next((each for each in door.ledger.glasses(row.request.key) if each.glass.digest == asked.verdict), None)
    if glass is not None:
        refuse_late_review(glass.glass, review, tags)
        door.ledger.review_glass(glass.id, review, door.clock())
        return
    refuse_review(kept[0], review, tags)
    if review.decision is ReviewDecision.MORE_SAMPLES:
        refuse_samples(door.ledger.evidence(kept[0].evidence_key))
    door.ledger.ask_review(asked.evaluation, review, door.clock())


def _broken(kept: KeptGlass, now: float) -> WaitingView:
    """A broken glass that waits for its review."""
    return WaitingView(
        evaluation=kept.evaluation,
        subject=kept.request.version.uri,
        policy=kept.request.policy,
        reason=f"the glass was broken by {kept.glass.by}: {kept.glass.reason} ({kept.glass.ticket})",
        since=float(kept.glass.at),
        verdict=kept.glass.digest,
        approvable=True,
        decided_by=None,
        break_glass=view(kept, now),
    )


def waiting(door: Door, row: EvaluationRow) -> WaitingView | None:
    """A version that waits for a person, as it is shown; ``None`` where it has no verdict."""
    kept = door.ledger.verdict(row.request.key)
    if kept is None:
        return None
    verdict = kept[0]
    review = verdict.review or door.ledger.review(row.request.key, verdict.digest)
    return WaitingView(
        evaluation=row.request.key,
        subject=row.request.version.uri,
        policy=row.request.policy,
        reason=verdict.reason,
        since=row.updated_at,
        verdict=verdict.digest,
        approvable=verdict.outcome is Outcome.NEEDS_REVIEW and objection(verdict, ReviewDecision.APPROVE) is None,
        decided_by=review.reviewer if review else None,
    )
