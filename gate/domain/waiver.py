"""Waivers: signed documents that let one rule be failed by the exact bytes of one candidate, until a day.

A waiver never stands for what was not measured, for a defect of the files or for a signature: it speaks of a number that
is there and past its limit. Who approved it is part of it; whether those are enough is for ``gate.domain.waiving``.
"""

from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.errors import InvalidInput
from gate.domain.evidence import canonical_json, digest_json

WAIVER_TYPE = "application/vnd.basin-gate.waiver+json"
"""The payload type of the envelope, unlike any other of the gate's: none can be passed off as another."""
FORMAT: Final = "https://basin-gate.dev/waiver/v1"
REASON_CHARACTERS = 600
NAME_CHARACTERS = 200


class Approval(Frozen):
    """One person's word for a waiver; ``at`` in Unix seconds."""

    approver: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    at: int


class Waiver(Frozen):
    """What is waived, for whom, why and until when. ``policy`` and ``rule`` are names; times are Unix seconds.

    ``approvals`` are kept by name, one each: in which order they came says nothing.
    """

    candidate_digest: Sha256
    policy: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    rule: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    owner: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    reason: str = Field(min_length=1, max_length=REASON_CHARACTERS)
    ticket: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    requested_by: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    requested_at: int
    expires_at: int
    approvals: tuple[Approval, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> "Waiver":
        if self.expires_at <= self.requested_at:
            raise ValueError("expires_at: expected a time after requested_at, found none after it")
        names = [each.approver for each in self.approvals]
        if names != sorted(set(names)):
            raise ValueError("approvals: expected one by each approver, in the order of their names, found others")
        return self

    @property
    def id(self) -> str:
        """sha256 of what was asked for; approvals do not change it."""
        return digest_json(self.model_dump(mode="json", exclude={"approvals"}))

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who approved it, by name."""
        return tuple(each.approver for each in self.approvals)

    def approved(self, approval: Approval) -> "Waiver":
        """The waiver with one more approval; the first of a person stands."""
        if approval.approver in self.approvers:
            return self
        ordered = sorted((*self.approvals, approval), key=lambda each: each.approver)
        return self.model_copy(update={"approvals": tuple(ordered)})

    def enough(self, critical: bool) -> bool:
        """Whether enough people approved it: one besides who asked for it, and two where the rule is critical."""
        others = set(self.approvers) - {self.requested_by}
        return bool(others) and len(set(self.approvers)) >= (2 if critical else 1)


class _Document(Waiver):
    format: Literal["https://basin-gate.dev/waiver/v1"] = FORMAT


def waiver_document(waiver: Waiver) -> bytes:
    """The payload to sign: canonical JSON."""
    return canonical_json(_Document.model_validate(waiver.model_dump()).model_dump(mode="json"))


def read_waiver(payload: bytes) -> Waiver:
    """The waiver of a verified payload; anything unknown or missing is ``InvalidInput``."""
    try:
        read = _Document.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InvalidInput(
            f"expected a waiver of Basin Gate, found at {place}: {first['msg']}; have it requested again"
        ) from error
    return Waiver.model_validate(read.model_dump(exclude={"format"}))


def waiver_schema() -> dict[str, Any]:
    """The JSON Schema of the signed document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _Document.model_json_schema()
