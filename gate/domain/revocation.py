"""Approvals taken back for good: what stands in a revocation, and the signed list of them that readers check offline.

A revocation names one registered version, and the bytes that were judged where they are known: the same files under
another name or number are revoked with it. There is no way back; files that deserve another judgement are registered
with a byte changed.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from gate.domain.attestation import SCHEMA_DIALECT, instant, seconds
from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.errors import InvalidInput
from gate.domain.evidence import canonical_json
from gate.domain.verdict import Outcome, Verdict

REVOCATIONS_TYPE = "application/vnd.basin-gate.revocations+json"
"""The payload type of the envelope, unlike an attestation's: neither can be passed off as the other."""
FORMAT: Final = "https://basin-gate.dev/revocations/v1"
REASON_CHARACTERS = 1_000

Instant = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


class Revocation(Frozen):
    """One approval taken back. ``subject`` is a version's identity; ``revoked_at`` is in Unix seconds."""

    subject: str
    candidate_digest: Sha256 | None
    reason: str = Field(min_length=1, max_length=REASON_CHARACTERS)
    revoked_at: int

    def speaks_of(self, subject: str, candidate_digest: str | None) -> bool:
        """Whether this takes back an approval of that version, or of those bytes under any name."""
        same_bytes = self.candidate_digest is not None and self.candidate_digest == candidate_digest
        return same_bytes or self.subject == subject

    @property
    def sentence(self) -> str:
        """Why an approval does not count."""
        return f"its approval was revoked at {instant(self.revoked_at)}: {self.reason}"

    @property
    def verdict(self) -> str:
        """The reason of a verdict that it overrules."""
        return f"Revoked at {instant(self.revoked_at)}: {self.reason}"


class RevocationList(Frozen):
    """All revocations known when the list was issued. Times are Unix seconds; a list for ever has no ``expires_at``."""

    issued_at: int
    expires_at: int | None = None
    entries: tuple[Revocation, ...]

    def of(self, subject: str, candidate_digest: str | None) -> Revocation | None:
        """The revocation of a version or of its bytes, if there is one."""
        return next((entry for entry in self.entries if entry.speaks_of(subject, candidate_digest)), None)

    def staleness(self, now: int) -> str | None:
        """Why the list is too old to be relied on, or ``None``."""
        if self.expires_at is None or now < self.expires_at:
            return None
        return (
            f"expected a list of revocations in force, found one that ended at {instant(self.expires_at)}; "
            "issue a new one with: basin-gate revocations"
        )


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, strict=True)


class _Entry(_Document):
    resource_uri: str
    candidate_digest: Sha256 | None
    reason: str
    revoked_at: Instant


class _ListDocument(_Document):
    format: Literal["https://basin-gate.dev/revocations/v1"] = FORMAT
    issued_at: Instant
    expires_at: Instant | None
    revoked: tuple[_Entry, ...] = Field(strict=False)


def revocations_schema() -> dict[str, Any]:
    """The JSON Schema of a list."""
    return {"$schema": SCHEMA_DIALECT} | _ListDocument.model_json_schema(by_alias=True)


def revocation_list(entries: Sequence[Revocation], issued_at: int, expires_at: int | None = None) -> bytes:
    """The payload to sign: canonical JSON, the entries in the order of their subjects."""
    document = _ListDocument(
        issued_at=instant(issued_at),
        expires_at=None if expires_at is None else instant(expires_at),
        revoked=tuple(
            _Entry(
                resource_uri=entry.subject,
                candidate_digest=entry.candidate_digest,
                reason=entry.reason,
                revoked_at=instant(entry.revoked_at),
            )
            for entry in sorted(entries, key=lambda entry: entry.subject)
        ),
    )
    return canonical_json(document.model_dump(mode="json", by_alias=True))


def read_revocations(payload: bytes) -> RevocationList:
    """The list of a verified payload; anything unknown or missing is ``InvalidInput``."""
    try:
        document = _ListDocument.model_validate_json(payload, by_alias=True, by_name=False)
        entries = tuple(
            Revocation(
                subject=entry.resource_uri,
                candidate_digest=entry.candidate_digest,
                reason=entry.reason,
                revoked_at=seconds(entry.revoked_at),
            )
            for entry in document.revoked
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InvalidInput(
            f"expected a list of revocations of Basin Gate, found at {place}: {first['msg']}; "
            "issue it again with: basin-gate revocations"
        ) from error
    until = document.expires_at
    return RevocationList(
        issued_at=seconds(document.issued_at), expires_at=seconds(until) if until else None, entries=entries
    )


def overruled(verdict: Verdict, revocation: Revocation | None) -> Verdict:
    """The verdict, blocked where its version or its bytes are revoked: judging again approves nothing revoked."""
    if revocation is None:
        return verdict
    return verdict.model_copy(update={"outcome": Outcome.BLOCKED, "reason": revocation.verdict})
