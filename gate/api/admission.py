"""Kubernetes' question: may this resource be created? A validating webhook that refuses unapproved models.

Which namespaces are held to it, and which are only warned, is said by the webhook configuration's selectors: the API
server knows the namespace's labels, an admission review does not carry them.
"""

from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gate.adapters.standing import referenced
from gate.api.door import Door
from gate.domain.admission import asked_references
from gate.domain.errors import GateError
from gate.domain.reference import parse_reference

router = APIRouter(prefix="/admission", tags=["admission"])
log = structlog.get_logger(__name__)
WARNING_CHARACTERS = 250
"""Kubernetes cuts warnings off at 256."""


class AdmissionRequest(BaseModel):
    """The part of Kubernetes' admission request that is read."""

    model_config = ConfigDict(frozen=True)
    uid: str
    operation: str
    namespace: str = ""
    name: str = ""
    resource: dict[str, Any] | None = Field(default=None, alias="object")
    resource_before: dict[str, Any] | None = Field(default=None, alias="oldObject")


class AdmissionReview(BaseModel):
    """Kubernetes' ``AdmissionReview`` of ``admission.k8s.io/v1`` with a request in it."""

    model_config = ConfigDict(frozen=True)
    api_version: Literal["admission.k8s.io/v1"] = Field(alias="apiVersion")
    kind: Literal["AdmissionReview"]
    request: AdmissionRequest


@router.post("")
def enforce(request: Request, review: AdmissionReview) -> dict[str, Any]:
    """Refuse a resource whose model has no approval in force, or of which that cannot be found out now."""
    door: Door = request.app.state.door
    refused = _refusals(door, review.request)
    if not refused:
        return _reply(review, {"allowed": True})
    _told(door, review.request, "deny", refused)
    message = "[basin-gate] " + "; ".join(refused)
    return _reply(review, {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": message}})


@router.post("/warn")
def warn(request: Request, review: AdmissionReview) -> dict[str, Any]:
    """Allow whatever it is, with a warning where it would be refused elsewhere."""
    door: Door = request.app.state.door
    refused = _refusals(door, review.request)
    if not refused:
        return _reply(review, {"allowed": True})
    _told(door, review.request, "warn", refused)
    return _reply(review, {"allowed": True, "warnings": [f"[basin-gate] {w}"[:WARNING_CHARACTERS] for w in refused]})


def _refusals(door: Door, asked: AdmissionRequest) -> list[str]:
    """Why the resource must not be; empty where each of its models is approved, or it has none."""
    try:
        texts = asked_references(asked.operation, asked.resource or {}, asked.resource_before or {})
    except GateError as error:
        return [str(error)]
    refused = [why for text in texts if (why := _refusal(door, text))]
    if not refused:
        door.metrics.admissions.labels("allow" if texts else "unconcerned").inc()
    return refused


def _refusal(door: Door, text: str) -> str | None:
    try:
        version = referenced(door.registry, parse_reference(text))
        answer = door.standing.answer(version, door.clock())
    except GateError as error:
        return f"{text} cannot be looked up: {error}"
    return None if answer.allowed else f"{text} is not approved: {answer.reason}"


def _told(door: Door, asked: AdmissionRequest, answer: str, refused: list[str]) -> None:
    door.metrics.admissions.labels(answer).inc()
    log.warning("admission", answer=answer, namespace=asked.namespace, name=asked.name, reasons=refused)


def _reply(review: AdmissionReview, response: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": review.api_version,
        "kind": review.kind,
        "response": {"uid": review.request.uid, **response},
    }
