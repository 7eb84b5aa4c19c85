"""Whether one policy only tightens another: what a team may do to its organisation's, and nothing else."""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Any

from gate.domain.evidence import DefectCode
from gate.domain.policy import BreakGlassTerms, Layer, Policy, Protected, Rule
from gate.domain.promotion import STRICTEST_FIRST
from gate.domain.verdict import Enforcement


class RuleChange(StrEnum):
    """What became of a rule from one policy to another; ``otherwise`` where neither text is at least as strict."""

    ADDED = "added"
    REMOVED = "removed"
    TIGHTENED = "tightened"
    LOOSENED = "loosened"
    REWORDED = "reworded"
    OTHERWISE = "otherwise"


LAYERS: tuple[Layer, ...] = ("organisation", "team", "model")
"""From the highest: each may tighten what is above it."""
OWN = frozenset({"name", "description", "layer", "parent", "origins"})
"""What a document says of itself alone."""
STRICTNESS = (Enforcement.DRY_RUN, Enforcement.WARN, Enforcement.REVIEW, Enforcement.BLOCK)


def loosened(upper: Policy, lower: Policy) -> tuple[str, ...]:
    """Every way in which ``lower`` might let through what ``upper`` would not; empty where it only tightens.

    Each of the upper's rules must be in the lower, by measurement and capability, with a limit and an enforcement
    at least as strict. ``capability`` is compared as it is written: ``*`` speaks of what the evidence names, and so does
    not replace a capability that must be there. How it is measured must be the same, but for a smaller ``alpha``.
    """
    return tuple(_loosened(upper, lower))


def merged(parent: Policy, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A lower layer's document with what it inherits; whether that only tightens is for `loosened` to say.

    A rule of the parent stays unless the document has one of its name; what is protected is what either protects; both
    matches must hold; of the rest the document's own word goes first, key by key.
    """
    above = {key: value for key, value in parent.model_dump(mode="json").items() if key not in OWN}
    own = {rule.get("name") for rule in _list(document.get("rules")) if isinstance(rule, dict)}
    inherited = [rule for rule in above["rules"] if rule["name"] not in own]
    both = {
        "match": _both(parent.match, document.get("match")),
        "rules": [*_list(document.get("rules")), *inherited] if _is_list(document.get("rules")) else document["rules"],
        "origins": _origins(parent, document, own),
    }
    if isinstance(document.get("protected", {}), dict):
        both["protected"] = _united(above["protected"], document.get("protected", {}))
    for key in ("defects", "on_approved", "on_blocked", "plan", "budget", "waivers", "break_glass"):
        if key in document and isinstance(document[key], dict) and isinstance(above.get(key), dict):
            both[key] = {**above[key], **document[key]}
    return {**above, **document, **both}


def _is_list(value: Any) -> bool:
    return value is None or isinstance(value, list)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _both(above: str, own: Any) -> Any:
    if own is None or not isinstance(own, str):
        return above if own is None else own
    return own if above.strip() == "true" else above if own.strip() == "true" else f"({above}) && ({own})"


def _origins(parent: Policy, document: Mapping[str, Any], own: Collection[Any]) -> dict[str, str]:
    """Of each rule, the layer and the policy it was written in."""
    named = f"{parent.layer} {parent.name}"
    above = {rule.name: parent.origins.get(rule.name, named) for rule in parent.rules if rule.name not in own}
    mine = f"{document.get('layer')} {document.get('name')}"
    return {**{str(name): mine for name in own}, **above}


def _united(above: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What either protects; what is not a list is left as it is, to be refused with its line."""
    kinds = {**above, **own}
    return {
        kind: list(dict.fromkeys([*above.get(kind, ()), *own.get(kind, ())]))
        if _is_list(own.get(kind)) and own.get(kind)
        else value
        for kind, value in kinds.items()
    }


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


def _softened(upper: Protected, lower: Protected) -> Iterator[str]:
    """Names that are refused, or told of, in one and less than that in the other."""
    for name in (*upper.aliases, *upper.stages, *upper.registered_models):
        wanted, found = (each.modes.get(name, "enforce") for each in (upper, lower))
        if STRICTEST_FIRST.index(found) > STRICTEST_FIRST.index(wanted):
            yield f"protected.modes: expected {wanted} or stricter for {name}, found {found}"


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
    yield from _softened(upper.protected, lower.protected)
    if lower.validity_days > upper.validity_days:
        yield f"validity_days: expected at most {upper.validity_days}, found {lower.validity_days}"
    if upper.on_bypass == "restore" and lower.on_bypass != "restore":
        yield f"on_bypass: expected restore, found {lower.on_bypass}"
    if upper.on_blocked.restore and not lower.on_blocked.restore:
        yield "on_blocked.restore: expected true, found false"
    if missing := set(upper.on_blocked.notify) - set(lower.on_blocked.notify):
        yield f"on_blocked.notify: expected {', '.join(sorted(missing))} too"
    if upper.budget and (lower.budget is None or lower.budget.gpu_seconds > upper.budget.gpu_seconds):
        spent = "none" if lower.budget is None else f"{lower.budget.gpu_seconds:g}"
        yield f"budget.gpu_seconds: expected at most {upper.budget.gpu_seconds:g}, found {spent}"
    if lower.waivers and (upper.waivers is None or lower.waivers.max_days > upper.waivers.max_days):
        allowed = "none" if upper.waivers is None else f"at most {upper.waivers.max_days}"
        yield f"waivers.max_days: expected {allowed}, found {lower.waivers.max_days}"
    yield from _breakable(upper.break_glass, lower.break_glass)
    if lower.plan.alpha > upper.plan.alpha:
        yield f"plan.alpha: expected at most {upper.plan.alpha:g}, found {lower.plan.alpha:g}"
    if lower.plan.model_copy(update={"alpha": upper.plan.alpha}) != upper.plan:
        yield "plan: expected the same measuring, found another; numbers measured otherwise do not compare"


def _breakable(upper: BreakGlassTerms | None, lower: BreakGlassTerms | None) -> Iterator[str]:
    """Ways in which the glass could be broken more easily."""
    if lower is None:
        return
    if upper is None:
        yield "break_glass: expected none, found one"
        return
    if lower.max_hours > upper.max_hours:
        yield f"break_glass.max_hours: expected at most {upper.max_hours}, found {lower.max_hours}"
    if lower.review_within_hours > upper.review_within_hours:
        found = f"at most {upper.review_within_hours}, found {lower.review_within_hours}"
        yield f"break_glass.review_within_hours: expected {found}"


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
    if STRICTNESS.index(by.enforcement) < STRICTNESS.index(rule.enforcement) or not _applies_as_often(rule, by):
        return False
    return _limit_covers(rule, by)


def _applies_as_often(rule: Rule, by: Rule) -> bool:
    """Whether ``by`` speaks wherever ``rule`` does, lets nothing pass unmeasured that it would not, and is as sure."""
    opens = by.failure == "open" and rule.failure == "closed"
    return (
        by.when in (None, rule.when)
        and not opens
        and by.critical >= rule.critical
        and (by.confidence or 0) >= (rule.confidence or 0)
    )


def _limit_covers(rule: Rule, by: Rule) -> bool:
    if rule.at_most is not None:
        return by.at_most is not None and by.at_most <= rule.at_most
    if isinstance(rule.at_least, str) or isinstance(by.at_least, str):
        return rule.at_least == by.at_least
    return rule.at_least is not None and by.at_least is not None and by.at_least >= rule.at_least
