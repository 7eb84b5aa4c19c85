"""May this version be promoted? One answer for CI, for the reconciler, for whoever asks."""

from datetime import UTC, datetime

from gate.domain.checkpoint import Frozen
from gate.domain.policy import Policy
from gate.domain.verdict import Outcome, Verdict


class Answer(Frozen):
    """Whether, and why (or why not), in one sentence."""

    allowed: bool
    reason: str
    outcome: Outcome | None = None
    policy: str | None = None


def answer(
    policy: Policy | None, state: str | None, failure: str | None, verdict: Verdict | None, now: float
) -> Answer:
    """The answer for a version under the policy that matches it now. Only an approval in force allows.

    ``state`` is its evaluation's (``None`` where there is none), ``failure`` why an evaluation ended without a
    verdict. A policy in dry run allows whatever the verdict, and says what it would have been.
    """
    if policy is None:
        return Answer(allowed=False, reason="No policy speaks of this version; add one whose match covers it.")
    strict = _strict(state, failure, verdict, now).model_copy(update={"policy": policy.name})
    if policy.enforcement == "enforce" or strict.allowed:
        return strict
    return strict.model_copy(update={"allowed": True, "reason": f"Allowed in dry run only. {strict.reason}"})


def _strict(state: str | None, failure: str | None, verdict: Verdict | None, now: float) -> Answer:
    if state is None:
        return Answer(allowed=False, reason="It has not been evaluated under the policy in force.")
    if state != "done":
        return Answer(allowed=False, reason=f"Its evaluation is not finished ({state}).")
    if verdict is None:
        reason = f"Its evaluation ended in error: {failure or 'no reason was kept'}"
        return Answer(allowed=False, reason=reason, outcome=Outcome.ERROR)
    if verdict.outcome is Outcome.APPROVED and verdict.expires_at <= now:
        return Answer(allowed=False, reason=_expired(verdict), outcome=verdict.outcome)
    return Answer(allowed=verdict.outcome is Outcome.APPROVED, reason=verdict.reason, outcome=verdict.outcome)


def _expired(verdict: Verdict) -> str:
    day = datetime.fromtimestamp(verdict.expires_at, UTC).date().isoformat()
    return f"Its approval expired on {day}; register the same files as a new version to have them judged again."
