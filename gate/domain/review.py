"""A person's decision where the numbers did not decide: what may be reviewed, and what a review makes of a verdict.

A review speaks of one verdict by its digest, which covers bytes, base, policy and evidence: when one of them changes there
is another verdict, and nobody has reviewed it. It never lifts a block, never stands for a measurement that failed, and
never approves what nothing was measured of.
"""

from collections.abc import Mapping

from gate.domain.errors import InvalidInput
from gate.domain.verdict import Enforcement, Outcome, Review, ReviewDecision, Verdict

SUBMITTER_TAGS = ("submitter", "mlflow.user")
"""Tags of a version that name who made it; the first that is there counts. MLflow itself keeps nobody."""
DECIDING = (Enforcement.BLOCK, Enforcement.REVIEW)


def submitter_of(tags: Mapping[str, str]) -> str | None:
    """Who made a version, where its tags say so.

    >>> submitter_of({"mlflow.user": "ada"})
    'ada'
    """
    return next((tags[name] for name in SUBMITTER_TAGS if tags.get(name)), None)


def objection(verdict: Verdict, decision: ReviewDecision) -> str | None:
    """Why a verdict cannot be decided so by a person, or ``None`` where it can."""
    if verdict.review is not None:
        return (
            f"it was reviewed already, by {verdict.review.reviewer}; register the version again to have it judged anew"
        )
    if verdict.outcome is not Outcome.NEEDS_REVIEW:
        return f"only a verdict that needs review can be reviewed, and this one is {verdict.outcome.replace('_', ' ')}"
    if decision is ReviewDecision.APPROVE and not _measured(verdict):
        return "nothing was measured of it, and what was not measured is never approved; name its base, or onboard it"
    return None


def refuse_review(verdict: Verdict, review: Review, tags: Mapping[str, str]) -> None:
    """Raises `InvalidInput` where the review may not be made, with the reason and what to do."""
    if review.verdict_digest != verdict.digest:
        raise InvalidInput(
            f"expected a review of verdict {verdict.digest[:12]}, found one of {review.verdict_digest[:12]}: it was judged "
            "again since; read the new verdict and decide on that"
        )
    if reason := objection(verdict, review.decision):
        raise InvalidInput(f"expected a verdict that can be reviewed, found one that cannot: {reason}")
    if review.reviewer == submitter_of(tags):
        raise InvalidInput(
            f"expected a reviewer who did not submit the version, found {review.reviewer} for both; ask somebody else"
        )


def reviewed(verdict: Verdict, review: Review) -> Verdict:
    """The verdict as the review decides it, with the review in it. Call `refuse_review` first."""
    approved = review.decision is ReviewDecision.APPROVE
    word = "Approved" if approved else "Rejected"
    return verdict.model_copy(
        update={
            "outcome": Outcome.APPROVED if approved else Outcome.BLOCKED,
            "reason": f"{word} on review by {review.reviewer}: {review.reason} (what asked for it: {verdict.reason})",
            "review": review,
        }
    )


def _measured(verdict: Verdict) -> bool:
    """Whether any deciding rule spoke of a number."""
    return any(f.estimate is not None and f.enforcement in DECIDING for f in verdict.findings)
