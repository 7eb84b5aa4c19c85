"""Whether one policy only tightens another: what a team may do to its organisation's, and nothing else."""

from collections.abc import Iterator
from enum import StrEnum

from gate.domain.evidence import DefectCode
from gate.domain.policy import Policy, Rule
from gate.domain.verdict import Enforcement


class RuleChange(StrEnum):
    """What became of a rule from one policy to another; ``otherwise`` where neither text is at least as strict."""

    ADDED = "added"
    REMOVED = "removed"
    TIGHTENED = "tightened"
    LOOSENED = "loosened"
    REWORDED = "reworded"
    OTHERWISE = "otherwise"


STRICTNESS = (Enforcement.DRY_RUN, Enforcement.WARN, Enforcement.REVIEW, Enforcement.BLOCK)


def loosened(upper: Policy, lower: Policy) -> tuple[str, ...]:
    """Every way in which ``lower`` might let through what ``upper`` would not; empty where it only tightens.

    Each of the upper's rules must be in the lower, by measurement and capability, with a limit and an enforcement
    at least as strict. ``capability`` is compared as it is written: ``*`` speaks of what the evidence names, and so does
    not replace a capability that must be there. How it is measured must be the same, but for a smaller ``alpha``.
    """
    return tuple(_loosened(upper, lower))


def rule_changes(one: Policy, other: Policy) -> dict[str, RuleChange]:
    """What became of each rule that is not the same in both, by its name, in the order of their texts.

    A rule's name is no part of how strict it is: one that was renamed is removed and added.
    """
    before, after = ({rule.name: rule for rule in policy.rules} for policy in (one, other))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: _change(before.get(name), after.get(name)) for name in names}


def _change(before: Rule | None, after: Rule | None) -> RuleChange:
    if before is None:
        return RuleChange.ADDED
    if after is None:
        return RuleChange.REMOVED
    return {
        (True, True): RuleChange.REWORDED,
        (True, False): RuleChange.TIGHTENED,
        (False, True): RuleChange.LOOSENED,
        (False, False): RuleChange.OTHERWISE,
    }[_covers(before, after), _covers(after, before)]


def _loosened(upper: Policy, lower: Policy) -> Iterator[str]:
    if upper.enforcement == "enforce" and lower.enforcement != "enforce":
        yield f"enforcement: expected enforce, found {lower.enforcement}"
    yield from (_absent(rule, lower) for rule in upper.rules if not any(_covers(rule, r) for r in lower.rules))
    for code in DefectCode:
        wanted, found = upper.on_defect(code), lower.on_defect(code)
        if STRICTNESS.index(found) < STRICTNESS.index(wanted):
            yield f"defects.{code}: expected {wanted} or stricter, found {found}"
    for kind in ("aliases", "stages", "registered_models"):
        if missing := set(getattr(upper.protected, kind)) - set(getattr(lower.protected, kind)):
            yield f"protected.{kind}: expected {', '.join(sorted(missing))} too"
    if lower.validity_days > upper.validity_days:
        yield f"validity_days: expected at most {upper.validity_days}, found {lower.validity_days}"
    if upper.on_bypass == "restore" and lower.on_bypass != "restore":
        yield f"on_bypass: expected restore, found {lower.on_bypass}"
    if lower.plan.alpha > upper.plan.alpha:
        yield f"plan.alpha: expected at most {upper.plan.alpha:g}, found {lower.plan.alpha:g}"
    if lower.plan.model_copy(update={"alpha": upper.plan.alpha}) != upper.plan:
        yield "plan: expected the same measuring, found another; numbers measured otherwise do not compare"


def _absent(rule: Rule, lower: Policy) -> str:
    alike = [r.name for r in lower.rules if (r.measurement, r.capability) == (rule.measurement, rule.capability)]
    found = f"only {', '.join(alike)}, which is looser" if alike else "none"
    spoken_of = f"{rule.measurement}/{rule.capability}" if rule.capability else str(rule.measurement)
    return f"rules.{rule.name}: expected a rule on {spoken_of} at least as strict, found {found}"


def _covers(rule: Rule, by: Rule) -> bool:
    """Whether whatever passes ``by`` passes ``rule``, and what does not pass weighs as much."""
    if (rule.measurement, rule.capability) != (by.measurement, by.capability):
        return False
    # A calibrated limit passes candidates of one base only; one without, or of another base, passes others.
    if rule.calibration is not None and (by.calibration is None or by.calibration.scope != rule.calibration.scope):
        return False
    return STRICTNESS.index(by.enforcement) >= STRICTNESS.index(rule.enforcement) and _limit_covers(rule, by)


def _limit_covers(rule: Rule, by: Rule) -> bool:
    if rule.at_most is not None:
        return by.at_most is not None and by.at_most <= rule.at_most
    if isinstance(rule.at_least, str) or isinstance(by.at_least, str):
        return rule.at_least == by.at_least
    return rule.at_least is not None and by.at_least is not None and by.at_least >= rule.at_least
