"""Breaking the glass: let a version be promoted now, against its verdict, for hours, and look at who did."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gate.api.access import named
from gate.api.door import Door, newest_of
from gate.domain.attestation import instant
from gate.domain.breaking import SECONDS_AN_HOUR, for_seconds, refuse_breaking
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.glass import NAME_CHARACTERS, REASON_CHARACTERS, BrokenGlass
from gate.domain.records import KeptGlass
from gate.domain.verdict import ReviewDecision

router = APIRouter(prefix="/v1/break-glass", tags=["break-glass"])


class GlassAsked(BaseModel):
    """Over which version the glass is broken, why, where that is followed, and for how many hours; as many as 4 where the
    policy lets it be without them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: str
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS, pattern=r"\S")]
    ticket: Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS, pattern=r"\S")]
    hours: Annotated[float, Field(gt=0, le=168)] | None = None


class GlassView(BaseModel):
    """A broken glass. It is ``in_force`` from when a worker has signed the approval until ``expires_at``; ``reviewed`` and
    ``reviewed_by`` are what somebody else decided afterwards, due by ``review_by``."""

    model_config = ConfigDict(frozen=True)
    id: int
    evaluation: str
    subject: str
    by: str
    reason: str
    ticket: str
    at: str
    expires_at: str
    review_by: str
    in_force: bool
    overdue: bool
    reviewed: ReviewDecision | None
    reviewed_by: str | None
    digest: str


class GlassesView(BaseModel):
    """Broken glasses, those that wait for a review first, then the newest first."""

    model_config = ConfigDict(frozen=True)
    glasses: tuple[GlassView, ...]


@router.get("")
def glasses(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> GlassesView:
    """Broken glasses, those that wait for a review first."""
    door: Door = request.app.state.door
    return GlassesView(glasses=tuple(view(each, door.clock()) for each in door.ledger.glasses(limit=limit)))


@router.post("", status_code=202)
def break_glass(request: Request, asked: GlassAsked) -> GlassView:
    """Breaks the glass over a version's verdict. A worker signs the approval at once; somebody else has to review it."""
    door, by = request.app.state.door, named("breaking the glass")
    now = door.clock()
    row = newest_of(door, asked.name, asked.version)
    kept, policy = door.ledger.verdict(row.request.key), door.standing.policy_of(row.request.policy_digest)
    if kept is None:
        raise NotFound(f"expected a verdict on version {asked.version} of {asked.name!r}, found none yet; wait for it")
    if policy is None:
        raise InvalidInput(
            "expected a verdict under a policy in force, found one under another; wait for the new verdict"
        )
    revoked = door.ledger.revocation(kept[0].subject, kept[0].candidate_digest)
    refuse_breaking(kept[0], policy, revoked[0] if revoked else None, now)
    seconds, within = for_seconds(policy, asked.hours), policy.break_glass.review_within_hours
    glass = BrokenGlass(
        by=by,
        reason=" ".join(asked.reason.split()),
        ticket=" ".join(asked.ticket.split()),
        at=int(now),
        expires_at=int(now) + seconds,
        review_by=int(now) + within * SECONDS_AN_HOUR,
        verdict_digest=kept[0].digest,
    )
    return view(door.ledger.break_glass(row.request.key, kept[0].candidate_digest, glass, now), now)


def view(kept: KeptGlass, now: float) -> GlassView:
    """A broken glass as it is shown."""
    said, review = kept.glass, kept.review
    return GlassView(
        id=kept.id,
        evaluation=kept.evaluation,
        subject=kept.request.version.uri,
        by=said.by,
        reason=said.reason,
        ticket=said.ticket,
        at=instant(said.at),
        expires_at=instant(said.expires_at),
        review_by=instant(said.review_by),
        in_force=kept.signed and not kept.ended and said.expires_at > now,
        overdue=kept.signed and review is None and said.review_by <= now,
        reviewed=review.decision if review else None,
        reviewed_by=review.reviewer if review else None,
        digest=said.digest,
    )
