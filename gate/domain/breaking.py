"""Whether the glass may be broken over a verdict, what that makes of it, and who may review it afterwards.

It stands for a number that is past its limit, or that does not clear it, and only where the policy permits that. It never
stands for what was not measured or could not be judged, for files that are not what they say to be, for bytes that nobody
hashed or that were changed, or for a revocation.
"""

from collections.abc import Mapping

from gate.domain.attestation import instant
from gate.domain.errors import InvalidInput
from gate.domain.evidence import DefectCode
from gate.domain.glass import BrokenGlass
from gate.domain.policy import Policy
from gate.domain.review import measured, submitter_of
from gate.domain.revocation import Revocation
from gate.domain.verdict import DefectFinding, Enforcement, Outcome, Review, ReviewDecision, Verdict

SECONDS_AN_HOUR = 3600
DEFAULT_HOURS = 4.0
"""For how long where nobody says, as far as the policy lets it."""
DECIDING = (Enforcement.BLOCK, Enforcement.REVIEW)
FILES_AT_FAULT = frozenset(
    {
        DefectCode.ARTIFACTS_MISSING,
        DefectCode.ARTIFACTS_UNREADABLE,
        DefectCode.BASE_MISMATCH,
        DefectCode.UNSAFE_FILE,
        DefectCode.CUSTOM_CODE,
        DefectCode.ARCHIVE_FILE,
    }
)
"""Files that are not there, are not what they are said to be, or could do something: also where a policy only reviews them."""


def objection(verdict: Verdict, policy: Policy, revoked: Revocation | None, now: float) -> str | None:
    """Why the glass over a verdict cannot be broken, or ``None`` where it can."""
    if policy.break_glass is None:
        return f"policy {policy.name} does not permit it; it would say so by break_glass: {{max_hours: N}}"
    if revoked is not None:
        return f"{revoked.sentence}, and a revocation is for good"
    if verdict.outcome is Outcome.APPROVED and verdict.expires_at > now:
        return f"it is approved until {instant(verdict.expires_at)}"
    return _unbreakable(verdict)


def for_seconds(policy: Policy, hours: float | None) -> int:
    """For how long the glass is broken. Raises `InvalidInput` where the policy does not let it be that long."""
    most = policy.break_glass.max_hours if policy.break_glass else 0
    wanted = min(DEFAULT_HOURS, most) if hours is None else hours
    if not 0 < wanted <= most:
        raise InvalidInput(f"expected at most {most} hours, as policy {policy.name} says, found {wanted:g}")
    return max(1, int(wanted * SECONDS_AN_HOUR))


def refuse_breaking(verdict: Verdict, policy: Policy, revoked: Revocation | None, now: float) -> None:
    """Raises `InvalidInput` where the glass cannot be broken, with the reason."""
    if reason := objection(verdict, policy, revoked, now):
        raise InvalidInput(
            f"expected a verdict over which the glass can be broken, found one where it cannot: {reason}"
        )


def broken(verdict: Verdict, glass: BrokenGlass) -> Verdict:
    """The verdict as an approval that ends with the broken glass. Call `refuse_breaking` first."""
    reason = (
        f"Approved by breaking the glass until {instant(glass.expires_at)}, by {glass.by}: {glass.reason} "
        f"({glass.ticket}; to be reviewed by {instant(glass.review_by)}; what held it back: {verdict.reason})"
    )
    changes = {"outcome": Outcome.APPROVED, "reason": reason, "judged_at": glass.at, "expires_at": glass.expires_at}
    return verdict.model_copy(update={**changes, "break_glass": glass})


def refuse_late_review(glass: BrokenGlass, review: Review, tags: Mapping[str, str]) -> None:
    """Raises `InvalidInput` where this person may not say whether breaking the glass was right."""
    if review.decision is ReviewDecision.MORE_SAMPLES:
        raise InvalidInput(
            "expected a decision whether breaking the glass was right, found one to compare more samples; "
            "approve or reject it"
        )
    if review.reviewer in (glass.by, submitter_of(tags)):
        did = "broke the glass" if review.reviewer == glass.by else "submitted the version"
        raise InvalidInput(
            f"expected a reviewer who neither broke the glass nor submitted the version, found {review.reviewer} who "
            f"{did}; ask somebody else"
        )


def _unbreakable(verdict: Verdict) -> str | None:
    if verdict.candidate_digest is None:
        return "nobody hashed its bytes, and an approval must be of something; have it evaluated again"
    if verdict.errors:
        return f"it could not be judged: {verdict.errors[0]}"
    if wrong := next((each for each in verdict.defects if _at_fault(each)), None):
        return f"its files are at fault: {wrong.defect.message}"
    return None if measured(verdict) else "nothing was measured of it, and what was not measured never passes"


def _at_fault(found: DefectFinding) -> bool:
    known = found.defect.code in FILES_AT_FAULT and found.enforcement in DECIDING
    return known or found.enforcement is Enforcement.BLOCK
