"""CI's question: may this version be promoted, and where to? Asked by pipelines, Argo Rollouts and Flagger."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gate.adapters.standing import Position
from gate.api.door import Door
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.permission import Answer, Decision, against, where_watched
from gate.domain.policy import Policy
from gate.domain.promotion import Mode, mode_of, strictest_of
from gate.domain.question import PLACES, Check, PromotionAnswer, PromotionQuestion
from gate.domain.reference import parse_reference

router = APIRouter(prefix="/v1/promotions", tags=["promotions"])
REFUSED: dict[int | str, dict[str, Any]] = {
    403: {"model": PromotionAnswer, "description": "It may not be promoted (yet); the reasons are in the body."}
}


class Canary(BaseModel):
    """What Flagger posts to a webhook. Its ``metadata`` names the model, and where to: ``model``
    (``models:/NAME/VERSION``) and at most one of ``alias``, ``stage`` and ``registered_model``."""

    model_config = ConfigDict(frozen=True)
    name: str
    namespace: str
    phase: str = ""
    metadata: Annotated[dict[str, str], Field(max_length=50)] = {}


@router.post("", responses=REFUSED)
def promotions(request: Request, response: Response, asked: PromotionQuestion) -> PromotionAnswer:
    """200 if the version may be promoted now, 403 with the reasons if not: the status is the answer."""
    return _by_status(request, response, asked)


@router.post("/decision")
def decision(request: Request, asked: PromotionQuestion) -> PromotionAnswer:
    """The same answer, always with status 200, for callers that read the body and take every other status for a
    failure of their own, as Argo Rollouts' web metric does."""
    return _answer(request.app.state.door, asked)


@router.post("/flagger", responses=REFUSED)
def flagger(request: Request, response: Response, canary: Canary) -> PromotionAnswer:
    """The same question as Flagger asks it in a `confirm-promotion` webhook: 200 lets the canary be promoted."""
    return _by_status(request, response, _question(canary))


def _by_status(request: Request, response: Response, asked: PromotionQuestion) -> PromotionAnswer:
    given = _answer(request.app.state.door, asked)
    response.status_code = 200 if given.allowed else 403
    return given


def _question(canary: Canary) -> PromotionQuestion:
    reference = parse_reference(canary.metadata.get("model", ""))
    if reference.version is None:
        raise InvalidInput("expected metadata.model to name a version by its number: an alias may move meanwhile")
    places = {place: canary.metadata[place] for place in PLACES if place in canary.metadata}
    try:
        return PromotionQuestion(name=reference.name, version=reference.version, **places)
    except ValidationError as error:
        raise InvalidInput(f"metadata: {error.errors()[0]['msg']}") from error


def _answer(door: Door, asked: PromotionQuestion) -> PromotionAnswer:
    version = door.registry.version(asked.name, asked.version)
    position = door.standing.position(version, door.clock())
    mode = _mode(door, asked, position.policy)
    given = where_watched(_qualified(door, asked, version, position), asked.place or "", mode)
    if given.decision is Decision.PENDING and position.row is not None and position.row.state != "done":
        door.ledger.await_verdict(position.row.request.key, door.clock())
    door.metrics.promotion_questions.labels("allow" if given.allowed else "deny").inc()
    row, verdict = position.row, position.verdict
    return PromotionAnswer(
        subject=asked.uri,
        place=asked.place,
        protected=None if asked.place is None else mode is not None,
        allowed=given.allowed,
        **given.model_dump(),
        reasons=tuple(against(verdict)) if verdict else () if given.allowed else (given.reason,),
        evaluation=row.request.key if row else None,
        verdict=verdict.digest if verdict else None,
        expires_at=verdict.expires_at if verdict else None,
        state=row.state if row else None,
        stage=row.stage if row else None,
        progress=row.progress if row else None,
        run_url=door.registry.run_url(row.run_id) if row and row.run_id else None,
        checks=tuple(Check.of(finding) for finding in verdict.findings) if verdict else (),
    )


def _qualified(door: Door, asked: PromotionQuestion, version: ModelVersion, position: Position) -> Answer:
    """The answer in the light of what else keeps MLflow from promoting it: no verdict will ever come, the approval is
    not written there yet, or the target is kept by another policy than the one that judged."""
    given, policy = position.answer, position.policy
    if policy is None:
        return given
    if given.decision is Decision.PENDING and door.standing.request(version) is None:
        reason = "It is a prompt or an onboarded base: the gate does not judge it, so it cannot be approved."
        return given.model_copy(update={"decision": Decision.DENIED, "reason": reason})
    if not given.allowed:
        return given
    others = [name for name in _keepers(door, asked) if name != policy.name]
    if others:
        reason = f"{asked.place} is kept by policy {', '.join(others)}, and its approval is by policy {policy.name}."
        return given.model_copy(update={"decision": Decision.DENIED, "reason": reason, "would_refuse": None})
    if policy.enforcement == "enforce" and (position.row is None or not position.row.projected):
        reason = "It is approved, and the approval is being written to MLflow."
        return given.model_copy(update={"decision": Decision.PENDING, "reason": reason})
    return given


def _keepers(door: Door, asked: PromotionQuestion) -> list[str]:
    """The enforcing policies that keep the registered model asked for; copies must be approved by each of them."""
    target = asked.registered_model
    kept = (p for p in door.policies.policies if target and mode_of(p, "model", target) == "enforce")
    return [policy.name for policy in kept]


def _mode(door: Door, asked: PromotionQuestion, policy: Policy | None) -> Mode | None:
    """What MLflow makes of an unapproved promotion there, as its guard asks it: by the policy of the version for an
    alias or a stage, by every policy for a registered model."""
    if asked.registered_model is not None:
        return strictest_of(mode_of(each, "model", asked.registered_model) for each in door.policies.policies)
    if policy is None:
        return None
    if asked.alias is not None:
        return mode_of(policy, "alias", asked.alias)
    return mode_of(policy, "stage", asked.stage) if asked.stage is not None else None
