"""What waits for a person, and what a person decided."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gate.api.access import CALLER
from gate.api.door import Door
from gate.domain.checkpoint import Sha256
from gate.domain.errors import Forbidden, NotFound
from gate.domain.overview import EvaluationRow, FleetQuery
from gate.domain.review import objection, refuse_review
from gate.domain.verdict import REVIEW_CHARACTERS, Outcome, Review, ReviewDecision

router = APIRouter(prefix="/v1/reviews", tags=["reviews"])


class ReviewAsked(BaseModel):
    """A decision to be made. ``verdict`` is the digest of the verdict that was read: it decides on no other."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    evaluation: str
    verdict: Sha256
    decision: ReviewDecision
    reason: Annotated[str, Field(min_length=1, max_length=REVIEW_CHARACTERS)]


class WaitingView(BaseModel):
    """A version that waits for a person. ``approvable`` is false where nothing was measured that one could approve."""

    model_config = ConfigDict(frozen=True)
    evaluation: str
    subject: str
    policy: str
    reason: str
    since: float
    verdict: str
    approvable: bool
    decided_by: str | None


class ReviewsView(BaseModel):
    """The inbox, the longest waiting first; ``more`` where there are more than were asked for."""

    model_config = ConfigDict(frozen=True)
    reviews: tuple[WaitingView, ...]
    more: bool


@router.get("")
def reviews(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> ReviewsView:
    """Verdicts that need review, the longest waiting first."""
    found = request.app.state.door.ledger.fleet(FleetQuery(outcome="needs_review", sort="oldest", limit=limit))
    rows = [waiting(request.app.state.door, each.evaluation) for each in found.rows]
    return ReviewsView(reviews=tuple(row for row in rows if row), more=bool(found.next))


@router.post("", status_code=202)
def decide(request: Request, asked: ReviewAsked) -> WaitingView:
    """Approves or rejects a version whose verdict needs review. A worker signs it; the registry then follows."""
    door: Door = request.app.state.door
    keep(door, asked)
    row = door.ledger.evaluation(asked.evaluation)
    shown = waiting(door, row) if row else None
    if shown is None:
        raise NotFound(f"expected a verdict on evaluation {asked.evaluation}, found none")
    return shown


def keep(door: Door, asked: ReviewAsked) -> None:
    """Keeps the caller's decision. Raises `Forbidden` for somebody without a name, `InvalidInput` where it may not be."""
    caller = CALLER.get()
    if caller is None or not caller.name:
        raise Forbidden(
            "expected a reviewer with a name, found nobody; a review has to be signed for: set GATE_TOKENS_FILE"
        )
    row, kept = door.ledger.evaluation(asked.evaluation), door.ledger.verdict(asked.evaluation)
    if row is None or kept is None:
        raise NotFound(f"expected a verdict on evaluation {asked.evaluation}, found none to review")
    review = Review(
        decision=asked.decision,
        reviewer=caller.name,
        reason=" ".join(asked.reason.split()) or "no reason",
        decided_at=int(door.clock()),
        verdict_digest=asked.verdict,
    )
    refuse_review(kept[0], review, row.request.version.tags)
    door.ledger.ask_review(asked.evaluation, review, door.clock())


def waiting(door: Door, row: EvaluationRow) -> WaitingView | None:
    """A version that waits for a person, as it is shown; ``None`` where it has no verdict."""
    kept = door.ledger.verdict(row.request.key)
    if kept is None:
        return None
    verdict, review = kept[0], door.ledger.review(row.request.key)
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
