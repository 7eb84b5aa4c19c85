"""May this version be promoted? One answer for CI, for the reconciler, for whoever asks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum

from gate.domain.checkpoint import Frozen
from gate.domain.policy import Policy
from gate.domain.promotion import Mode
from gate.domain.verdict import Enforcement, Outcome, Result, Verdict

DECIDING = frozenset({Enforcement.BLOCK, Enforcement.REVIEW})
CLEARED = frozenset({Result.PASS, Result.WAIVED})


class Decision(StrEnum):
    """The answer's word. ``pending`` may become any of the others by itself; ``needs_review`` waits for a person."""

    ALLOWED = "allowed"
    DENIED = "denied"
    PENDING = "pending"
    NEEDS_REVIEW = "needs_review"


class Answer(Frozen):
    """Whether, and why (or why not), in one sentence.

    ``would_refuse`` is why an unapproved version would be refused if its policy were enforced; ``None`` where nothing
    was let pass.
    """

    decision: Decision
    reason: str
    outcome: Outcome | None = None
    policy: str | None = None
    would_refuse: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may be promoted now."""
        return self.decision is Decision.ALLOWED


def answer(
    policy: Policy | None, state: str | None, failure: str | None, verdict: Verdict | None, now: float
) -> Answer:
    """The answer for a version under the policy that matches it now. Only an approval in force allows.

    ``state`` is its evaluation's (``None`` where there is none), ``failure`` why an evaluation ended without a
    verdict. A policy in dry run allows whatever the verdict, and says what it would have been.
    """
    if policy is None:
        return _denied("No policy speaks of this version; add one whose match covers it.")
    strict = _strict(state, failure, verdict, now).model_copy(update={"policy": policy.name})
    if policy.enforcement == "enforce" or strict.allowed:
        return strict
    return _let_pass(strict, f"Allowed in dry run only. {strict.reason}")


def where_watched(given: Answer, place: str, mode: Mode | None) -> Answer:
    """The answer for a place, of which a policy may say that the registry lets everything pass and only tells of it.

    A place that no policy keeps (``None``) is answered like one that is enforced.
    """
    if given.allowed or mode is None or mode == "enforce":
        return given
    watched = f"Allowed, since {place} is only watched ({mode}); an unapproved version would be refused there"
    return _let_pass(given, f"{watched}: {given.reason}")


def against(verdict: Verdict) -> Iterator[str]:
    """Everything in a verdict that speaks against an approval, one sentence each."""
    yield from verdict.errors
    yield from (each.defect.message for each in verdict.defects if each.enforcement in DECIDING)
    for finding in verdict.findings:
        if finding.enforcement in DECIDING and finding.result not in CLEARED:
            yield finding.sentence


def _strict(state: str | None, failure: str | None, verdict: Verdict | None, now: float) -> Answer:
    if state is None:
        return Answer(decision=Decision.PENDING, reason="It has not been evaluated under the policy in force.")
    if state != "done":
        return Answer(decision=Decision.PENDING, reason=f"Its evaluation is not finished ({state}).")
    if verdict is None:
        return _denied(f"Its evaluation ended in error: {failure or 'no reason was kept'}", Outcome.ERROR)
    if verdict.outcome is Outcome.APPROVED and verdict.expires_at <= now:
        return _denied(_expired(verdict), verdict.outcome)
    return Answer(decision=_decision(verdict.outcome), reason=verdict.reason, outcome=verdict.outcome)


def _let_pass(strict: Answer, reason: str) -> Answer:
    changes = {"decision": Decision.ALLOWED, "reason": reason, "would_refuse": strict.reason}
    return strict.model_copy(update=changes)


def _denied(reason: str, outcome: Outcome | None = None) -> Answer:
    return Answer(decision=Decision.DENIED, reason=reason, outcome=outcome)


def _decision(outcome: Outcome) -> Decision:
    if outcome is Outcome.APPROVED:
        return Decision.ALLOWED
    return Decision.NEEDS_REVIEW if outcome is Outcome.NEEDS_REVIEW else Decision.DENIED


def _expired(verdict: Verdict) -> str:
    day = datetime.fromtimestamp(verdict.expires_at, UTC).date().isoformat()
    return f"Its approval expired on {day}; register the same files as a new version to have them judged again."
