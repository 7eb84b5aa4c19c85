"""Waivers: ask for one, approve it, end it, look at those there are."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gate.api.access import named
from gate.api.door import Door, newest_of
from gate.domain.attestation import instant
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.records import KeptWaiver, WaiverState
from gate.domain.waiver import NAME_CHARACTERS, REASON_CHARACTERS, Approval, Waiver
from gate.domain.waiving import SECONDS_A_DAY, refuse_request, rule_of

router = APIRouter(prefix="/v1/waivers", tags=["waivers"])
Text = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS, pattern=r"\S")]
Reason = Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS, pattern=r"\S")]


class WaiverAsked(BaseModel):
    """A waiver to be granted: of one rule, for the bytes of a registered version, for so many days."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: str
    rule: Text
    owner: Text
    reason: Reason
    ticket: Text
    days: Annotated[float, Field(gt=0, le=365)]


class WaiverEnded(BaseModel):
    """Why a waiver is ended before its time, or a request turned down."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reason: Reason


class WaiverView(BaseModel):
    """A waiver. ``seconds_left`` until it expires (0 where it did), ``approvals_missing`` where it waits for people;
    ``envelope`` is the signed document (DSSE), once a worker has signed it."""

    model_config = ConfigDict(frozen=True)
    id: str
    state: str
    candidate: str
    policy: str
    rule: str
    critical: bool
    owner: str
    reason: str
    ticket: str
    requested_by: str
    requested_at: str
    approvers: tuple[str, ...]
    approvals_missing: int
    expires_at: str
    seconds_left: float
    ended_because: str | None
    envelope: dict[str, Any] | None


class WaiversView(BaseModel):
    """Waivers, those in force or asked for first, the first to end before the others."""

    model_config = ConfigDict(frozen=True)
    waivers: tuple[WaiverView, ...]


@router.get("")
def waivers(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> WaiversView:
    """Waivers, those in force or asked for first."""
    door: Door = request.app.state.door
    return WaiversView(waivers=tuple(view(each, door.clock()) for each in door.ledger.waivers(limit=limit)))


@router.get("/{id}")
def waiver(request: Request, id: str) -> WaiverView:
    """One waiver."""
    door: Door = request.app.state.door
    return view(door.ledger.waiver(id), door.clock())


@router.post("", status_code=201)
def ask(request: Request, asked: WaiverAsked) -> WaiverView:
    """Asks for a waiver of a rule that holds a version back. It counts once enough people have approved it."""
    return requested(request.app.state.door, asked)


@router.post("/{id}/approvals")
def approve(request: Request, id: str) -> WaiverView:
    """Approves a waiver. With enough approvals it is granted: a worker signs it and judges again, without measuring."""
    return approved(request.app.state.door, id)


@router.post("/{id}/revocation")
def revoke(request: Request, id: str, ended: WaiverEnded) -> WaiverView:
    """Ends a waiver at once, or turns a request down; what rested on it is judged again."""
    return revoked(request.app.state.door, id, ended)


def requested(door: Door, asked: WaiverAsked) -> WaiverView:
    """Keeps what the caller asked for. Raises `Forbidden` for somebody without a name, `InvalidInput` where it may not be."""
    now = door.clock()
    row = newest_of(door, asked.name, asked.version)
    kept, policy = door.ledger.verdict(row.request.key), door.standing.policy_of(row.request.policy_digest)
    if kept is None or kept[0].candidate_digest is None:
        raise NotFound(f"expected a verdict on the files of version {asked.version} of {asked.name!r}, found none")
    if policy is None:
        raise InvalidInput(
            "expected a verdict under a policy in force, found one under another; wait for the new verdict"
        )
    if kept[0].review is not None:
        raise InvalidInput(f"expected a verdict that nobody decided on, found one that {kept[0].review.reviewer} did")
    value = Waiver(
        candidate_digest=kept[0].candidate_digest,
        policy=policy.name,
        rule=asked.rule,
        owner=_line(asked.owner),
        reason=_line(asked.reason),
        ticket=_line(asked.ticket),
        requested_by=named("a waiver"),
        requested_at=int(now),
        expires_at=int(now + asked.days * SECONDS_A_DAY),
    )
    refuse_request(value, policy, kept[0].findings)
    return view(door.ledger.ask_waiver(value, rule_of(policy, asked.rule).critical, now), now)


def approved(door: Door, id_: str) -> WaiverView:
    """Adds the caller's approval. Raises `Forbidden`, `NotFound`, `InvalidInput`."""
    now = door.clock()
    return view(door.ledger.approve_waiver(id_, Approval(approver=named("a waiver"), at=int(now)), now), now)


def revoked(door: Door, id_: str, ended: WaiverEnded) -> WaiverView:
    """Ends a waiver in the caller's name. Raises `Forbidden`, `NotFound`, `InvalidInput`."""
    now = door.clock()
    return view(door.ledger.revoke_waiver(id_, named("a waiver"), _line(ended.reason), now), now)


def view(kept: KeptWaiver, now: float) -> WaiverView:
    """A waiver as it is shown."""
    said, over = kept.waiver, kept.waiver.expires_at <= now
    open_ones = (WaiverState.REQUESTED, WaiverState.GRANTED)
    return WaiverView(
        id=said.id,
        state=WaiverState.EXPIRED if over and kept.state in open_ones else kept.state,
        candidate=said.candidate_digest,
        policy=said.policy,
        rule=said.rule,
        critical=kept.critical,
        owner=said.owner,
        reason=said.reason,
        ticket=said.ticket,
        requested_by=said.requested_by,
        requested_at=instant(said.requested_at),
        approvers=said.approvers,
        approvals_missing=0 if said.enough(kept.critical) else max(1, 1 + kept.critical - len(said.approvals)),
        expires_at=instant(said.expires_at),
        seconds_left=max(0.0, said.expires_at - now) if kept.state in open_ones else 0.0,
        ended_because=kept.ended_because,
        envelope=None if kept.envelope is None else dict(kept.envelope),
    )


def _line(text: str) -> str:
    return " ".join(text.split())
