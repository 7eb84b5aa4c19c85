"""The words and marks of an outcome, the same on every page."""

from collections.abc import Mapping

from gate.domain.verdict import Outcome

TITLES: Mapping[Outcome, str] = {
    Outcome.APPROVED: "Approved",
    Outcome.BLOCKED: "Blocked",
    Outcome.NEEDS_REVIEW: "Needs review",
    Outcome.ERROR: "Error: no verdict could be reached",
}
NEXT: Mapping[Outcome, str] = {
    Outcome.APPROVED: "It may be promoted until the verdict expires or any byte of it changes.",
    Outcome.BLOCKED: "It cannot be promoted. Mend what the failed rules name, and register the result as a new version.",
    Outcome.NEEDS_REVIEW: "It cannot be promoted yet: a person has to decide on what stands open.",
    Outcome.ERROR: "It cannot be promoted: nothing was decided. Its errors say what failed.",
}
FAILED = "It cannot be promoted: the evaluation itself failed. Ask for it again once its cause is mended."
"""What follows for an evaluation that ended without a verdict."""
MARKS: Mapping[str, str] = {
    Outcome.APPROVED: "✓",
    Outcome.BLOCKED: "✕",
    Outcome.NEEDS_REVIEW: "?",
    Outcome.ERROR: "!",
    "open": "…",
}
"""A shape for each outcome, so that colour is never the only sign."""
