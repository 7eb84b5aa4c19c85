"""Verdicts as in-toto statements: the compact summary that travels with a version, and the full measurement.

The summary is a SLSA Verification Summary (VSA v1). It has no word for *expires* or for *needs review*, so those
stand in one namespaced extension; everything that is not approved is ``FAILED`` to whoever reads only the VSA.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from gate.domain.checkpoint import Checkpoint, Frozen, Sha256
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence, canonical_json, digest_json
from gate.domain.verdict import Outcome, Verdict

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
SUMMARY_TYPE: Final = "https://slsa.dev/verification_summary/v1"
MEASUREMENT_TYPE = "https://basin-gate.dev/attestations/measurement/v1"
VERIFIER: Final = "https://basin-gate.dev/verifier/v1"
POLICIES = "https://basin-gate.dev/policies/"
EXTENSION = "https://basin-gate.dev/verdict/v1"
APPROVED_LEVEL = "BASIN_GATE_APPROVED"
BREAK_GLASS_LEVEL = "BASIN_GATE_BREAK_GLASS"
"""The one level of an approval that a person gave against the findings: whoever asks for the other can tell."""
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
REASON_CHARACTERS = 1_000
SUBJECT_BYTES = 36_000
"""The signed summary travels as a tag; MySQL gives one 65 535 bytes, and base64 makes three bytes four."""

Instant = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


class _Document(BaseModel):
    """A part of a statement: camelCase on the wire, closed, immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, strict=True)


class Digest(_Document):
    sha256: Sha256


class Subject(_Document):
    """What a statement speaks of: a file and its bytes' sha256."""

    name: str
    digest: Digest


class _Verifier(_Document):
    id: Literal["https://basin-gate.dev/verifier/v1"] = VERIFIER


class _PolicyReference(_Document):
    uri: Annotated[str, Field(pattern=rf"^{POLICIES}[a-z][a-z0-9-]*$")]
    digest: Digest


class _InputAttestation(_Document):
    digest: Digest


class _BreakGlass(_Document):
    by: str
    ticket: str


class _Extension(_Document):
    outcome: Annotated[Outcome, Field(strict=False)]
    reason: str
    expires_at: Instant
    candidate_digest: Sha256 | None
    base_digest: Sha256 | None
    verdict_digest: Sha256
    break_glass: _BreakGlass | None = Field(default=None, exclude_if=lambda found: found is None)


class _SummaryPredicate(_Document):
    verifier: _Verifier = _Verifier()
    time_verified: Instant
    resource_uri: str
    policy: _PolicyReference
    input_attestations: tuple[_InputAttestation, ...] = Field(strict=False)
    verification_result: Literal["PASSED", "FAILED"]
    verified_levels: tuple[str, ...] = Field(strict=False)
    slsa_version: Literal["1.0"] = "1.0"
    extension: _Extension = Field(alias=EXTENSION)


class _SummaryStatement(_Document):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT_TYPE, alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1, strict=False)
    predicate_type: Literal["https://slsa.dev/verification_summary/v1"] = SUMMARY_TYPE
    predicate: _SummaryPredicate


class _MeasurementPredicate(Frozen):
    evidence: Evidence
    verdict: Verdict


class Summary(Frozen):
    """A read summary: what it speaks of, what was decided under which policy, and until when. Times are Unix seconds.

    ``broken_by`` is who broke the glass, where it is an approval against the findings.
    """

    resource_uri: str
    passed: bool
    outcome: Outcome
    reason: str
    policy: str
    policy_digest: Sha256
    candidate_digest: Sha256 | None
    verdict_digest: Sha256
    subjects: Mapping[str, Sha256]
    verified_at: int
    expires_at: int
    broken_by: str | None = None

    def refusal(self, identity: str, now: int) -> str | None:
        """Why this is no approval of the version with this identity now, or ``None`` where it is one."""
        if self.resource_uri != identity:
            return f"its attestation is for another version ({self.resource_uri}); have this one evaluated"
        if not self.passed:
            return f"{self.outcome.replace('_', ' ')} by policy {self.policy}: {self.reason}"
        if now >= self.expires_at:
            return f"its approval expired at {instant(self.expires_at)}; have it evaluated again"
        return None


def summary_statement(verdict: Verdict, candidate: Checkpoint, measurement: Mapping[str, Any]) -> dict[str, Any]:
    """The statement that a version carries: a SLSA VSA v1 over the candidate's files.

    ``measurement`` is the signed envelope of ``measurement_statement``; its digest becomes the input attestation.
    """
    passed, glass = verdict.outcome is Outcome.APPROVED, verdict.break_glass
    predicate = _SummaryPredicate(
        time_verified=instant(verdict.judged_at),
        resource_uri=verdict.subject,
        policy=_PolicyReference(uri=POLICIES + verdict.policy, digest=Digest(sha256=verdict.policy_digest)),
        input_attestations=(_InputAttestation(digest=Digest(sha256=digest_json(measurement))),),
        verification_result="PASSED" if passed else "FAILED",
        verified_levels=(_level(verdict),),
        extension=_Extension(
            outcome=verdict.outcome,
            reason=verdict.reason[:REASON_CHARACTERS],
            expires_at=instant(verdict.expires_at),
            candidate_digest=verdict.candidate_digest,
            base_digest=verdict.base_digest,
            verdict_digest=verdict.digest,
            break_glass=_BreakGlass(by=glass.by, ticket=glass.ticket) if glass and passed else None,
        ),
    )
    statement = _SummaryStatement(subject=_subjects(candidate, verdict), predicate=predicate)
    return statement.model_dump(mode="json", by_alias=True)


def measurement_statement(evidence: Evidence, verdict: Verdict) -> dict[str, Any]:
    """The statement with all that was measured and found; too long for a tag, kept with the evaluation's run."""
    subjects = _subjects(evidence.candidate, verdict)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [s.model_dump(mode="json") for s in subjects],
        "predicateType": MEASUREMENT_TYPE,
        "predicate": _MeasurementPredicate(evidence=evidence, verdict=verdict).model_dump(mode="json"),
    }


def summary_schema() -> dict[str, Any]:
    """The JSON Schema of the statement that a version carries."""
    return {"$schema": SCHEMA_DIALECT} | _SummaryStatement.model_json_schema(by_alias=True)


def measurement_schema() -> dict[str, Any]:
    """The JSON Schema of the measurement predicate: all that was measured, and the verdict on it."""
    return {"$schema": SCHEMA_DIALECT} | _MeasurementPredicate.model_json_schema()


def read_summary(payload: bytes) -> Summary:
    """The summary of a verified payload; anything unknown, missing or contradictory is ``InvalidInput``."""
    try:
        statement = _SummaryStatement.model_validate_json(payload, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"]) or "the whole"
        raise InvalidInput(
            f"expected a verification summary (VSA v1) of Basin Gate, found at {place}: {first['msg']}; "
            "have the version evaluated again, or upgrade what reads it where a newer gate wrote it"
        ) from error
    predicate, ours = statement.predicate, statement.predicate.extension
    passed = predicate.verification_result == "PASSED"
    if passed != (ours.outcome is Outcome.APPROVED):
        raise InvalidInput(
            f"expected PASSED for approved only, found {predicate.verification_result} for {ours.outcome}; "
            "have the version evaluated again"
        )
    if (ours.break_glass is not None) != (predicate.verified_levels == (BREAK_GLASS_LEVEL,)):
        raise InvalidInput(
            f"expected the level {BREAK_GLASS_LEVEL} for an approval by breaking the glass and only there, found "
            f"{', '.join(predicate.verified_levels)}; have the version evaluated again"
        )
    return Summary(
        resource_uri=predicate.resource_uri,
        passed=passed,
        outcome=ours.outcome,
        reason=ours.reason,
        policy=predicate.policy.uri.removeprefix(POLICIES),
        policy_digest=predicate.policy.digest.sha256,
        candidate_digest=ours.candidate_digest,
        verdict_digest=ours.verdict_digest,
        subjects={s.name: s.digest.sha256 for s in statement.subject},
        verified_at=seconds(predicate.time_verified),
        expires_at=seconds(ours.expires_at),
        broken_by=ours.break_glass.by if ours.break_glass else None,
    )


def _level(verdict: Verdict) -> str:
    if verdict.outcome is not Outcome.APPROVED:
        return "FAILED"
    return APPROVED_LEVEL if verdict.break_glass is None else BREAK_GLASS_LEVEL


def instant(at: int) -> str:
    """Unix seconds as RFC 3339 in UTC.

    >>> instant(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> int:
    """RFC 3339 in UTC as Unix seconds; ``InvalidInput`` for a day or hour that does not exist.

    >>> seconds("1970-01-02T00:00:00Z")
    86400
    """
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise InvalidInput(f"expected a time like 2026-01-31T12:00:00Z, found {text!r}") from error


def _subjects(candidate: Checkpoint, verdict: Verdict) -> tuple[Subject, ...]:
    """Each file where they fit, else the digest over all; the evidence itself where there is no file at all."""
    each = tuple(Subject(name=f.path, digest=Digest(sha256=f.sha256)) for f in candidate.files)
    if not each:
        return (Subject(name="evidence", digest=Digest(sha256=verdict.evidence_digest)),)
    if len(canonical_json([s.model_dump(mode="json") for s in each])) <= SUBJECT_BYTES:
        return each
    return (Subject(name=f"{len(each)} files", digest=Digest(sha256=candidate.digest)),)
