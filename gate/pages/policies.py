"""A policy in words: what each rule asks, what is protected, how verdicts under it went."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gate.domain.evidence import MEANINGS
from gate.domain.overview import PolicyUse
from gate.domain.policy import Policy, Protected, Rule
from gate.domain.sentences import NOUNS, limit_text
from gate.pages.html_report import moment
from gate.pages.rules import CONSEQUENCES

EVERY = "every version"
NAMED = (
    ("aliases", "alias", "aliases"),
    ("stages", "stage", "stages"),
    ("registered_models", "registered model", "registered models"),
)


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule as it is read: what is measured, where its limit lies, what follows where it does not pass."""

    name: str
    measured: str
    meaning: str
    limit: str
    consequence: str
    reason: str
    notes: tuple[str, ...]
    decides: bool


@dataclass(frozen=True, slots=True)
class Use:
    """How verdicts under a policy went. ``since`` is when its present text was first asked to judge; ``counts`` are of every
    text that it ever had."""

    since: str
    counts: dict[str, int]
    earlier: int


def rule_lines(policy: Policy) -> list[RuleLine]:
    """A policy's rules as they are read, in the order of its text."""
    own = f"{policy.layer} {policy.name}"
    origins = {rule.name: policy.origins.get(rule.name, own) for rule in policy.rules}
    return [rule_line(rule, None if origins[rule.name] == own else origins[rule.name]) for rule in policy.rules]


def rule_line(rule: Rule, origin: str | None = None) -> RuleLine:
    """A rule as it is read; ``origin`` is the policy that it was inherited from."""
    meaning = MEANINGS[rule.measurement]
    plain = NOUNS.get(rule.measurement, rule.measurement.value.replace("_", " "))
    return RuleLine(
        name=rule.name,
        measured=plain if rule.capability is None else f"{plain} of {_capability(rule.capability)}",
        meaning=f"{meaning.sentence} Unit: {meaning.unit}.",
        limit=rule_limit(rule),
        consequence=CONSEQUENCES[rule.enforcement],
        reason=rule.reason,
        notes=tuple(_notes(rule, origin)),
        decides=CONSEQUENCES[rule.enforcement] in ("blocks", "asks for review"),
    )


def rule_limit(rule: Rule) -> str:
    """Where a rule's limit lies, in words.

    >>> from gate.domain.vocabulary import Name
    >>> rule_limit(Rule(name="r", measurement=Name.RETENTION, capability="*", at_least="margin", reason="r"))
    'at least minus the margin that the suite gives the capability'
    >>> rule_limit(Rule(name="r", measurement=Name.DISPLACEMENT_RELATIVE, at_most=0.25, reason="r"))
    'at most 0.25'
    """
    if rule.at_least == "margin":
        return "at least minus the margin that the suite gives the capability"
    side, limit = ("at least", rule.at_least) if rule.at_most is None else ("at most", rule.at_most)
    return f"{side} {limit_text(float(limit or 0.0), rule.measurement)}"


def _capability(name: str) -> str:
    return "each capability" if name == "*" else name


def _notes(rule: Rule, origin: str | None) -> Iterator[str]:
    if rule.critical:
        yield "critical: it must be measured, and a waiver of it needs two approvals"
    if rule.when is not None:
        yield f"applies only when {rule.when}"
    if rule.confidence is not None:
        yield f"its interval holds at {100 * rule.confidence:g} % or more"
    if rule.failure == "open":
        yield f"a version that was not measured passes it: {rule.failure_reason}"
    if (learned := rule.calibration) is not None:
        yield (
            f"its limit was calibrated on {learned.good} good fine-tunes on {learned.day}: at most "
            f"{100 * learned.false_block:g} % of such are held back, at {100 * learned.confidence:g} % confidence"
        )
    if origin is not None:
        yield f"inherited from {origin}"


def protects(protected: Protected) -> tuple[str, ...]:
    """What only an approved version may be given, kind by kind.

    >>> protects(Protected(aliases=("champion",), stages=("Production", "Staging"), modes={"Staging": "warn"}))
    ('alias champion', 'stages Production, Staging (only warned of)')
    """
    found = []
    for key, one, several in NAMED:
        names: tuple[str, ...] = getattr(protected, key)
        if names:
            found.append(f"{one if len(names) == 1 else several} {', '.join(_with_mode(n, protected) for n in names)}")
    return tuple(found)


def _with_mode(name: str, protected: Protected) -> str:
    told = {"warn": " (only warned of)", "dry_run": " (only recorded)"}
    return name + told.get(protected.modes.get(name, ""), "")


def matched(policy: Policy) -> str:
    """Which versions a policy speaks of: an expression, or that it is every one."""
    return EVERY if policy.match.strip() == "true" else policy.match


def layer(policy: Policy) -> str:
    """Whose document a policy is; empty for one of no layer."""
    if policy.layer is None:
        return ""
    return policy.layer if policy.parent is None else f"{policy.layer}, tightens {policy.parent}"


def use_of(policy: Policy, uses: Sequence[PolicyUse]) -> Use:
    """How verdicts under a policy of that name went."""
    own = [each for each in uses if each.policy == policy.name]
    now = next((each for each in own if each.digest == policy.digest), None)
    counts: dict[str, int] = {}
    for each in own:
        for outcome, number in each.counts.items():
            counts[outcome] = counts.get(outcome, 0) + number
    return Use(
        since=moment(now.since) if now else "",
        counts=counts,
        earlier=sum(sum(each.counts.values()) for each in own if each is not now),
    )
