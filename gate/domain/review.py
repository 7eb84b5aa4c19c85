"""A person's decision where the numbers did not decide: what may be reviewed, and what a review makes of a verdict.

A review speaks of one verdict by its digest, which covers bytes, base, policy and evidence: when one of them changes there
is another verdict, and nobody has reviewed it. It never lifts a block, never stands for a measurement that failed, and
never approves what nothing was measured of.
"""

from collections.abc import Iterator, Mapping, Sequence

from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence, Name
from gate.domain.verdict import Enforcement, Outcome, Review, ReviewDecision, Verdict

SUBMITTER_TAGS = ("submitter", "mlflow.user")
"""Tags of a version that name who made it; the first that is there counts. MLflow itself keeps nobody."""
DECIDING = (Enforcement.BLOCK, Enforcement.REVIEW)
UNMEASURED = {
    ReviewDecision.APPROVE: "what was not measured is never approved",
    ReviewDecision.MORE_SAMPLES: "so there is no comparison to go on with",
}


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
    if decision is not ReviewDecision.REJECT and not measured(verdict):
        return f"nothing was measured of it, and {UNMEASURED[decision]}; name its base, or onboard it"
    return None


def no_samples(evidence: Evidence | None) -> str | None:
    """Why there is no comparison to go on with, or ``None`` where items were kept back for that."""
    if evidence is None:
        return "its evidence is not kept; register the version again"
    if evidence.paired_outcomes:
        return None
    used = [f"{name} {n}" for name, n in _exhausted(evidence)]
    if not used:
        return "every capability that was compared is decided against its margin, and more samples do not change that"
    return (
        f"no items were kept back, all were compared of what is undecided ({', '.join(used)}); add items to the suite, "
        "set the plan's retention_items so that some are kept back, and register the version again"
    )


def refuse_samples(evidence: Evidence | None) -> None:
    """Raises `InvalidInput` where no more samples can be compared, with the reason and what to do."""
    if reason := no_samples(evidence):
        raise InvalidInput(f"expected items in reserve to compare, found none: {reason}")


def _exhausted(evidence: Evidence) -> Iterator[tuple[str, int]]:
    """The capabilities that are undecided against their margin, and how many items were compared of each."""
    for capability, margin in evidence.margins.items():
        found = evidence.find(Name.RETENTION, capability)
        if found is None or (found.lower is not None and found.lower >= -margin):
            continue
        if found.upper is None or found.upper >= -margin:
            yield capability, found.n


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
    """The verdict as an approval or a rejection decides it, with the review in it. Call `refuse_review` first."""
    if review.decision is ReviewDecision.MORE_SAMPLES:
        raise InvalidInput(
            "expected a decision to approve or to reject, found one to compare more samples; judge again"
        )
    approved = review.decision is ReviewDecision.APPROVE
    word = "Approved" if approved else "Rejected"
    return verdict.model_copy(
        update={
            "outcome": Outcome.APPROVED if approved else Outcome.BLOCKED,
            "reason": f"{word} on review by {review.reviewer}: {review.reason} (what asked for it: {verdict.reason})",
            "review": review,
        }
    )


def sampled(verdict: Verdict, asked: Sequence[Review], failure: str | None) -> Verdict:
    """The verdict with who had asked for more samples before it, the last one last, and what came of that.

    ``failure`` is why the samples asked for last could not be compared; without it they were.
    """
    if not asked:
        return verdict
    came = "more samples were compared" if failure is None else f"more samples could not be compared ({failure})"
    reason = f"{verdict.reason} ({came}, as {asked[-1].reviewer} asked: {asked[-1].reason})"
    return verdict.model_copy(update={"samples_asked": tuple(asked), "reason": reason})


def measured(verdict: Verdict) -> bool:
    """Whether any deciding rule spoke of a number."""
    return any(f.estimate is not None and f.enforcement in DECIDING for f in verdict.findings)
