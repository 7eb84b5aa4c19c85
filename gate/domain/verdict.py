"""What was decided, and why: every rule's finding, the outcome, one sentence of reason."""

from enum import StrEnum

from pydantic import Field

from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.evidence import Defect, Estimate, Name, digest_json
from gate.domain.glass import BrokenGlass
from gate.domain.waiver import Waiver

REVIEW_CHARACTERS = 600


class Outcome(StrEnum):
    """The verdict's word. Only ``approved`` lets a version be promoted."""

    APPROVED = "approved"
    BLOCKED = "blocked"
    NEEDS_REVIEW = "needs_review"
    ERROR = "error"


class Enforcement(StrEnum):
    """What a rule that does not pass leads to."""

    BLOCK = "block"
    REVIEW = "review"
    WARN = "warn"
    DRY_RUN = "dry_run"


class Result(StrEnum):
    """A rule against a number: the whole interval clears the limit, is past it, straddles it, or is absent.

    ``waived``: it does not clear the limit, and a waiver in force lets it.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    MISSING = "missing"
    WAIVED = "waived"


class Finding(Frozen):
    """One rule's result on one measurement, with the numbers it was reached from.

    ``failed_open``: nothing was measured, and the rule lets such a version through; its enforcement is then ``warn``.
    ``waiver`` is the id of the waiver that a waived finding rests on.
    """

    rule: str
    measurement: Name
    capability: str | None
    estimate: Estimate | None
    at_least: float | None = None
    at_most: float | None = None
    result: Result
    enforcement: Enforcement
    sentence: str
    failed_open: bool = Field(default=False, exclude_if=lambda found: not found)
    waiver: Sha256 | None = Field(default=None, exclude_if=lambda found: found is None)


class DefectFinding(Frozen):
    """One defect of the checkpoint and what the policy makes of it."""

    defect: Defect
    enforcement: Enforcement


class ReviewDecision(StrEnum):
    """What a person decides about a verdict that needs review."""

    APPROVE = "approve"
    REJECT = "reject"
    MORE_SAMPLES = "more_samples"
    """The comparison with the base goes on with items that were kept back, and the version is judged again."""


class Review(Frozen):
    """One person's decision on the verdict with that digest, with the reason; ``decided_at`` in Unix seconds.

    ``items`` are how many more samples of each undecided capability are asked for at most; all there are where it is ``None``.
    """

    decision: ReviewDecision
    reviewer: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=REVIEW_CHARACTERS)
    decided_at: int
    verdict_digest: Sha256
    items: int | None = Field(default=None, ge=1, exclude_if=lambda found: found is None)


class Verdict(Frozen):
    """The decision on one registered version (or folder), bound to bytes, policy and time.

    ``subject`` is the version's identity URI (or ``folder:`` and the candidate digest); times are Unix seconds.
    ``review`` is the person's decision that the outcome rests on, where there was one; ``waivers`` are those that findings
    rest on: it expires with the first of them. ``break_glass`` is who let it be approved against the findings, for hours.
    ``samples_asked`` is who asked for more samples on the verdicts before this one, and why, the first of them first.
    """

    subject: str
    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...]
    defects: tuple[DefectFinding, ...]
    errors: tuple[str, ...]
    policy: str
    policy_digest: Sha256
    candidate_digest: Sha256 | None
    base_digest: Sha256 | None
    evidence_key: Sha256
    evidence_digest: Sha256
    judged_at: int
    expires_at: int
    review: Review | None = Field(default=None, exclude_if=lambda found: found is None)
    waivers: tuple[Waiver, ...] = Field(default=(), exclude_if=lambda found: not found)
    break_glass: BrokenGlass | None = Field(default=None, exclude_if=lambda found: found is None)
    samples_asked: tuple[Review, ...] = Field(default=(), exclude_if=lambda found: not found)

    @property
    def worst_change(self) -> float | None:
        """The largest loss of score against the base among the capabilities the policy looks at; ``None`` without."""
        kept = (f.estimate for f in self.findings if f.measurement is Name.RETENTION and f.estimate is not None)
        return min((estimate.value for estimate in kept), default=None)

    @property
    def digest(self) -> str:
        """sha256 of the verdict's canonical JSON."""
        return digest_json(self.model_dump(mode="json"))
