"""Whether a waiver counts: the one place that says so, asked when it is requested, approved, and at every judging."""

from collections.abc import Collection

from gate.domain.errors import InvalidInput
from gate.domain.policy import Policy, Rule
from gate.domain.verdict import Enforcement, Finding, Result
from gate.domain.waiver import Approval, Waiver

SECONDS_A_DAY = 86_400
WAIVABLE = frozenset({Result.FAIL, Result.INCONCLUSIVE})
"""What is past its limit, and what may be: whoever accepts the worse accepts the lesser. What is missing is neither."""
DECIDING = frozenset({Enforcement.BLOCK, Enforcement.REVIEW})


def rule_of(policy: Policy, name: str) -> Rule:
    """The policy's rule of that name. Raises `InvalidInput`."""
    found = next((rule for rule in policy.rules if rule.name == name), None)
    if found is None:
        known = ", ".join(rule.name for rule in policy.rules)
        raise InvalidInput(
            f"expected a rule of policy {policy.name} ({known}), found {name!r}; defects of the files cannot be waived"
        )
    return found


def term_objection(waiver: Waiver, policy: Policy) -> str | None:
    """Why the policy grants no such waiver, or ``None``."""
    if policy.waivers is None:
        return f"policy {policy.name} grants no waivers; it would say so by waivers: {{max_days: N}}"
    days = (waiver.expires_at - waiver.requested_at) / SECONDS_A_DAY
    if days > policy.waivers.max_days:
        return f"expected at most {policy.waivers.max_days} days, as policy {policy.name} says, found {days:.4g}"
    return None


def objection(waiver: Waiver, policy: Policy, candidate_digest: str | None, now: int) -> str | None:
    """Why a waiver does not count for these bytes under this policy now, or ``None`` where it does."""
    if (waiver.policy, waiver.candidate_digest) != (policy.name, candidate_digest):
        return "it speaks of another policy or of other bytes"
    rule = next((rule for rule in policy.rules if rule.name == waiver.rule), None)
    if rule is None:
        return f"policy {policy.name} has no rule {waiver.rule}"
    if now >= waiver.expires_at:
        return "it expired"
    if not waiver.enough(rule.critical):
        return "two different people have to approve it" if rule.critical else "somebody else has to approve it"
    return term_objection(waiver, policy)


def covering(
    finding: Finding, policy: Policy, waivers: Collection[Waiver], candidate_digest: str | None, now: int
) -> Waiver | None:
    """The waiver that a finding may rest on: of those that count the one that ends last; ``None`` where none does."""
    if not _holds_back(finding):
        return None
    fit = [w for w in waivers if w.rule == finding.rule and objection(w, policy, candidate_digest, now) is None]
    return max(fit, key=lambda w: (w.expires_at, w.id), default=None)


def waivable(findings: Collection[Finding]) -> tuple[str, ...]:
    """The rules that hold a version back by a number, which a waiver could speak of; each once."""
    return tuple(dict.fromkeys(each.rule for each in findings if _holds_back(each)))


def _holds_back(finding: Finding) -> bool:
    return finding.result in WAIVABLE and finding.enforcement in DECIDING


def refuse_request(waiver: Waiver, policy: Policy, findings: Collection[Finding]) -> None:
    """Raises `InvalidInput` where no such waiver can be asked for on a verdict with these findings."""
    rule_of(policy, waiver.rule)
    if reason := term_objection(waiver, policy):
        raise InvalidInput(f"waiver refused: {reason}")
    of_rule = [each for each in findings if each.rule == waiver.rule]
    if not any(map(_holds_back, of_rule)):
        found = ", ".join(sorted({each.result for each in of_rule})) or "nothing"
        raise InvalidInput(
            f"expected rule {waiver.rule} to hold this version back by a number, found: {found}; what was not measured "
            "cannot be waived, and what passes, was waived or only warns need not be"
        )


def refuse_approval(waiver: Waiver, approval: Approval, now: int) -> None:
    """Raises `InvalidInput` where this approval adds nothing that could count."""
    if now >= waiver.expires_at:
        raise InvalidInput("expected a waiver that has not expired, found one that has; have it requested again")
    if approval.approver in waiver.approvers:
        raise InvalidInput(f"expected another approver, found {approval.approver} who approved it already")
