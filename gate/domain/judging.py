"""The one function where evidence meets policy: total, pure, deterministic, and never short-circuiting."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime

from gate.domain.evidence import Estimate, Evidence
from gate.domain.policy import Policy, Rule
from gate.domain.sentences import measured, uncalibrated, unmeasured
from gate.domain.verdict import DefectFinding, Enforcement, Finding, Outcome, Result, Verdict
from gate.domain.waiver import Waiver
from gate.domain.waiving import covering

SECONDS_A_DAY = 86_400
DECIDING = (Enforcement.BLOCK, Enforcement.REVIEW)
CLEARED = (Result.PASS, Result.WAIVED)
STRADDLES = {
    Result.PASS: "",
    Result.FAIL: "",
    Result.INCONCLUSIVE: ", and the interval does not clear the limit",
}


def judge(
    policy: Policy,
    evidence: Evidence,
    *,
    subject: str,
    now: int,
    idle: Collection[str] = frozenset(),
    waivers: Collection[Waiver] = (),
) -> Verdict:
    """The verdict of a policy on evidence, with every rule's finding.

    Blocked goes before error, error before needs_review, and only what is left is approved. Unknown is never
    good: a number that is missing, or whose interval does not clear its limit, keeps a deciding rule from passing.
    ``subject`` is what the verdict is bound to, ``now`` the Unix time it is given at. ``idle`` names the rules whose
    ``when`` is known to be false for this candidate; every other rule applies. Of ``waivers`` those count that speak of
    these bytes and this policy, were approved by enough people and have not expired; the verdict ends with the first.
    """
    found = [(f, _covering(f, policy, evidence, waivers, now)) for f in _findings(policy, evidence, idle)]
    findings = tuple(f if waiver is None else _waived(f, waiver) for f, waiver in found)
    used = tuple({waiver.id: waiver for _, waiver in found if waiver is not None}.values())
    defects = tuple(DefectFinding(defect=d, enforcement=policy.on_defect(d.code)) for d in evidence.defects)
    errors = _errors(evidence, defects)
    unsettled = tuple(_unsettled(policy, findings, evidence))
    outcome = _outcome(findings, defects, errors, unsettled)
    return Verdict(
        subject=subject,
        outcome=outcome,
        reason=_reason(outcome, policy, findings, defects, errors, unsettled),
        findings=findings,
        defects=defects,
        errors=errors,
        policy=policy.name,
        policy_digest=policy.digest,
        candidate_digest=evidence.candidate.digest if evidence.candidate.files else None,
        base_digest=evidence.base_digest,
        evidence_key=evidence.key,
        evidence_digest=evidence.digest,
        judged_at=now,
        expires_at=min([now + policy.validity_days * SECONDS_A_DAY, *(waiver.expires_at for waiver in used)]),
        waivers=used,
    )


def _covering(
    finding: Finding, policy: Policy, evidence: Evidence, waivers: Collection[Waiver], now: int
) -> Waiver | None:
    return covering(finding, policy, waivers, evidence.candidate.digest, now) if evidence.candidate.files else None


def _waived(finding: Finding, waiver: Waiver) -> Finding:
    by = f"waived until {_day(waiver.expires_at)} by waiver {waiver.id[:12]} ({waiver.ticket})"
    changes = {"result": Result.WAIVED, "waiver": waiver.id, "sentence": f"{finding.sentence}; {by}"}
    return finding.model_copy(update=changes)


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def decided(policy: Policy, evidence: Evidence) -> bool:
    """Whether no further measurement can change the outcome, or may be made: something already blocks, or the budget
    is spent. A rule with ``when`` settles nothing here, since it may turn out not to apply."""
    if _overspent(policy, evidence):
        return True
    conditional = frozenset(rule.name for rule in policy.rules if rule.when is not None)
    return any(policy.on_defect(d.code) is Enforcement.BLOCK for d in evidence.defects) or any(
        f.result is Result.FAIL and f.enforcement is Enforcement.BLOCK for f in _findings(policy, evidence, conditional)
    )


def compare(estimate: Estimate, *, at_least: float | None = None, at_most: float | None = None) -> Result:
    """A number against its limit: the whole interval must clear it; an absent bound clears nothing.

    >>> compare(Estimate(value=0.5, lower=0.4, upper=0.6, alpha=0.05), at_least=0.45)
    <Result.INCONCLUSIVE: 'inconclusive'>
    """
    below, above = estimate.lower, estimate.upper
    if at_least is not None:
        cleared, past = below is not None and below >= at_least, above is not None and above < at_least
    elif at_most is not None:
        cleared, past = above is not None and above <= at_most, below is not None and below > at_most
    else:
        raise ValueError("expected a limit, found neither at_least nor at_most")
    return Result.PASS if cleared else Result.FAIL if past else Result.INCONCLUSIVE


def _findings(policy: Policy, evidence: Evidence, idle: Collection[str]) -> Iterator[Finding]:
    for rule in policy.rules:
        # Only a rule that has a condition can be idle, whoever says so.
        if rule.when is not None and rule.name in idle:
            continue
        for capability in _capabilities(rule, evidence):
            yield _finding(rule, capability, evidence)


def _capabilities(rule: Rule, evidence: Evidence) -> Sequence[str | None]:
    """What a rule speaks of; ``*`` stays as it is where there is nothing to expand it to, and is then missing."""
    if rule.capability != "*":
        return [rule.capability]
    measured_ones = (m.capability for m in evidence.measurements if m.capability is not None)
    return list(dict.fromkeys([*evidence.capabilities, *evidence.margins, *measured_ones])) or ["*"]


def _finding(rule: Rule, capability: str | None, evidence: Evidence) -> Finding:
    estimate = evidence.find(rule.measurement, capability)
    # A number that is there but has no limit here (another base, no margin) is not a missing measurement.
    opened = estimate is None and rule.failure == "open"
    at_least = _lower_limit(rule, capability, evidence)
    limit = rule.at_most if rule.at_most is not None else at_least
    if rule.calibration is not None and not rule.calibration.covers(evidence):
        estimate, result, sentence = None, Result.MISSING, uncalibrated(rule, capability, rule.calibration, evidence)
    elif estimate is None or limit is None:
        result, sentence = Result.MISSING, unmeasured(rule, capability, evidence)
    else:
        result = compare(estimate, at_least=at_least, at_most=rule.at_most)
        sentence = measured(rule, capability, estimate, limit, evidence) + STRADDLES[result]
        if unsure := _unsure(rule, estimate):
            result, sentence = Result.INCONCLUSIVE, sentence + unsure
    return Finding(
        rule=rule.name,
        measurement=rule.measurement,
        capability=capability,
        estimate=estimate,
        at_least=at_least,
        at_most=rule.at_most,
        result=result,
        enforcement=_weakest(rule.enforcement) if opened else rule.enforcement,
        sentence=f"{sentence}; the rule fails open: {rule.failure_reason}" if opened else sentence,
        failed_open=opened,
    )


def _weakest(enforcement: Enforcement) -> Enforcement:
    """What is left of a rule that fails open: it is told, and decides nothing."""
    return Enforcement.WARN if enforcement in DECIDING else enforcement


def _unsure(rule: Rule, estimate: Estimate) -> str:
    """Why an interval is not at the level that the rule asks for; empty where it is, or where none is asked for."""
    # Levels are written as decimals: 1 - 0.01 is not quite 0.99.
    if rule.confidence is None or estimate.alpha <= 1 - rule.confidence + 1e-9:
        return ""
    return f", and the interval holds at {1 - estimate.alpha:.4g}, less than the {rule.confidence:g} asked for"


def _overspent(policy: Policy, evidence: Evidence) -> str:
    """That measuring took more than the policy allows; empty where it did not."""
    if policy.budget is None:
        return ""
    spent, allowed = sum(cost.seconds for cost in evidence.costs), policy.budget.gpu_seconds
    if spent <= allowed:
        return ""
    return (
        f"Measuring took {spent:.4g} seconds, more than the {allowed:g} of the policy's budget; "
        "raise budget.gpu_seconds, plan fewer items, or let a person decide"
    )


def _unsettled(policy: Policy, findings: Sequence[Finding], evidence: Evidence) -> Iterator[str]:
    """What asks for a person although no finding does."""
    if spent := _overspent(policy, evidence):
        yield spent
    if not any(f.enforcement in DECIDING for f in findings):
        yield "No deciding rule spoke of this candidate; have it measured, or let a person decide"


def _lower_limit(rule: Rule, capability: str | None, evidence: Evidence) -> float | None:
    if rule.at_least != "margin":
        return rule.at_least
    margin = evidence.margins.get(capability or "")
    return None if margin is None else -margin


def _errors(evidence: Evidence, defects: Sequence[DefectFinding]) -> tuple[str, ...]:
    """Operational failures; evidence about no bytes at all is one, for an approval must be of something."""
    if evidence.candidate.files or evidence.errors or any(d.enforcement in DECIDING for d in defects):
        return evidence.errors
    return ("expected the digests of the candidate's files, found none; inspect the version again",)


def _outcome(
    findings: Sequence[Finding], defects: Sequence[DefectFinding], errors: Sequence[str], unsettled: Sequence[str]
) -> Outcome:
    open_ones = [f.enforcement for f in findings if f.result not in CLEARED]
    if _blocking(findings, defects):
        return Outcome.BLOCKED
    if errors:
        return Outcome.ERROR
    if unsettled or any(e in DECIDING for e in open_ones) or any(d.enforcement is Enforcement.REVIEW for d in defects):
        return Outcome.NEEDS_REVIEW
    return Outcome.APPROVED


def _blocking(findings: Sequence[Finding], defects: Sequence[DefectFinding]) -> list[DefectFinding | Finding]:
    wrong = [d for d in defects if d.enforcement is Enforcement.BLOCK]
    failed = [f for f in findings if f.result is Result.FAIL and f.enforcement is Enforcement.BLOCK]
    return [*wrong, *sorted(failed, key=_slack)]


def _undecided(findings: Sequence[Finding], defects: Sequence[DefectFinding]) -> list[DefectFinding | Finding]:
    """What asks for a person: defects first, then failures, then what straddles or is missing."""
    order = (Result.FAIL, Result.INCONCLUSIVE, Result.MISSING)
    open_ones = [f for f in findings if f.enforcement in DECIDING and f.result in order]
    wrong = [d for d in defects if d.enforcement is Enforcement.REVIEW]
    return [*wrong, *sorted(open_ones, key=lambda f: (order.index(f.result), _slack(f)))]


def _slack(finding: Finding) -> float:
    """How far the deciding bound is inside its limit, in units of the limit; negative means past it."""
    if finding.estimate is None:
        return 0.0
    if finding.at_most is not None:
        limit, bound = finding.at_most, finding.estimate.upper
        return (limit - (finding.estimate.value if bound is None else bound)) / (abs(limit) or 1.0)
    limit, bound = finding.at_least or 0.0, finding.estimate.lower
    return ((finding.estimate.value if bound is None else bound) - limit) / (abs(limit) or 1.0)


def _reason(
    outcome: Outcome,
    policy: Policy,
    findings: Sequence[Finding],
    defects: Sequence[DefectFinding],
    errors: Sequence[str],
    unsettled: Sequence[str],
) -> str:
    if outcome is Outcome.BLOCKED:
        return _lead(policy, _blocking(findings, defects))
    if outcome is Outcome.ERROR:
        return f"The measurement did not finish: {errors[0]}{_more(len(errors))}"
    if outcome is Outcome.NEEDS_REVIEW:
        return unsettled[0] if unsettled else _lead(policy, _undecided(findings, defects))
    return _approval(findings)


def _lead(policy: Policy, deciding: Sequence[DefectFinding | Finding]) -> str:
    first, more = deciding[0], _more(len(deciding))
    if isinstance(first, DefectFinding):
        return first.defect.message + more
    return f"{first.sentence}; {_advice(policy, first)}{more}"


def _advice(policy: Policy, finding: Finding) -> str:
    """What to do: the policy's own words where its limit was passed, for they speak of that case."""
    if finding.result is Result.FAIL:
        return next(r.reason for r in policy.rules if r.name == finding.rule)
    if finding.result is Result.MISSING:
        return "have it measured, or let a person decide"
    return "give the suite more items, or let a person decide"


def _more(count: int) -> str:
    return "" if count == 1 else f" (and {count - 1} more)"


def _approval(findings: Sequence[Finding]) -> str:
    deciding = [f for f in findings if f.enforcement in DECIDING]
    if waived := [f for f in deciding if f.result is Result.WAIVED]:
        return f"Approved by waiver: {waived[0].sentence}{_more(len(waived))}; the other deciding checks pass"
    warned = sum(f.result is not Result.PASS for f in findings)
    closest = min(deciding, key=_slack)
    warnings = f"; {warned} that only warn{'s' if warned == 1 else ''} did not pass" if warned else ""
    return f"All {len(deciding)} deciding checks pass{warnings}; the closest: {closest.sentence}"
