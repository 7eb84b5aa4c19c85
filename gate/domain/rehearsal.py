"""A policy rehearsed on stored evidence: who would be decided otherwise, by which rule, and what would change a finding."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from gate.domain.checkpoint import Frozen, ModelVersion
from gate.domain.evidence import Evidence
from gate.domain.judging import judge
from gate.domain.permission import CLEARED, DECIDING
from gate.domain.policy import Policy
from gate.domain.verdict import Finding, Outcome, Result, Verdict

Idle = Callable[[Policy, Evidence, ModelVersion], Collection[str]]


@dataclass(frozen=True, slots=True)
class Judged:
    """A registered version, the evidence on it, the verdict that it was once given, and the key of that evaluation."""

    version: ModelVersion
    evidence: Evidence
    verdict: Verdict
    evaluation: str = ""


class Flip(Frozen):
    """A version that is decided otherwise; ``rules`` are the rules, and the defects, that the difference comes from;
    ``evaluation`` is the key of the evaluation that it was judged in before."""

    version: str
    evaluation: str
    before: Outcome
    after: Outcome
    rules: tuple[str, ...]
    reason: str


class Replay(Frozen):
    """Stored evidence judged again. ``approved_before`` counts versions that the policy speaks of and that had an approval,
    ``lost`` those of them that would have none; ``other_plan`` those measured otherwise than the policy asks now."""

    judged: int
    unmatched: int
    other_plan: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    by_rule: Mapping[str, int]
    flips: tuple[Flip, ...]
    approved_before: int
    lost: int

    @property
    def lost_rate(self) -> float | None:
        """The part of the approvals that would be lost; ``None`` where there was no approval to lose."""
        return self.lost / self.approved_before if self.approved_before else None

    def exceeds(self, budget: float | None) -> bool:
        """Whether more of the approvals would be lost than a budget allows; with a budget, none to tell by exceeds it."""
        return budget is not None and (self.lost_rate is None or self.lost_rate > budget)


def replay(history: Iterable[tuple[Policy | None, Judged]], idle: Idle | None = None) -> Replay:
    """Each version's evidence under the policy beside it; ``None`` where no policy speaks of the version.

    ``idle`` tells the rules whose ``when`` is false for a version; without it every rule applies.
    """
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    flips, unmatched, other_plan = [], 0, 0
    for policy, each in history:
        if policy is None:
            unmatched += 1
            continue
        unheard = idle(policy, each.evidence, each.version) if idle else frozenset()
        verdict = judge(policy, each.evidence, subject=each.verdict.subject, now=each.verdict.judged_at, idle=unheard)
        before[each.verdict.outcome] += 1
        after[verdict.outcome] += 1
        other_plan += each.evidence.plan != policy.plan
        if verdict.outcome is not each.verdict.outcome:
            flips.append(_flip(each, verdict))
    return Replay(
        judged=sum(after.values()),
        unmatched=unmatched,
        other_plan=other_plan,
        before=dict(sorted(before.items())),
        after=dict(sorted(after.items())),
        by_rule=dict(Counter(rule for flip in flips for rule in flip.rules).most_common()),
        flips=tuple(flips),
        approved_before=before[Outcome.APPROVED],
        lost=sum(flip.before is Outcome.APPROVED for flip in flips),
    )


def holding_back(verdict: Verdict) -> Iterator[str]:
    """The names of the rules, and the codes of the defects, that keep a verdict from an approval; each once."""
    open_rules = (f.rule for f in verdict.findings if f.enforcement in DECIDING and f.result not in CLEARED)
    defects = (str(d.defect.code) for d in verdict.defects if d.enforcement in DECIDING)
    yield from dict.fromkeys([*open_rules, *defects, *(["error"] if verdict.errors else [])])


def would_change(finding: Finding) -> str:
    """What would have to be otherwise for a finding to come out the other way.

    >>> from gate.domain.evidence import Estimate, Name
    >>> from gate.domain.verdict import Enforcement
    >>> would_change(Finding(rule="r", measurement=Name.RETENTION, capability="math", at_least=-0.1, sentence="",
    ...     estimate=Estimate(value=-0.5, lower=-0.6, upper=-0.4, alpha=0.05), result=Result.FAIL,
    ...     enforcement=Enforcement.BLOCK))
    'passes once the lower bound is 0.5 higher; or with at_least -0.6 or lower'
    """
    estimate, limit = finding.estimate, finding.at_least if finding.at_least is not None else finding.at_most
    if estimate is None or limit is None:
        return "passes once it is measured and the whole interval clears the limit"
    rising = finding.at_least is not None
    key, bound, side, away = (
        ("at_least", estimate.lower, "lower", "higher") if rising else ("at_most", estimate.upper, "upper", "lower")
    )
    if bound is None:
        return f"passes once the procedure gives a bound on the {side} side; no limit is cleared without one"
    gap = bound - limit if rising else limit - bound
    if finding.result is Result.PASS:
        return f"stops passing once the {side} bound is more than {gap:.4g} {'lower' if rising else 'higher'}"
    loosened = f"{key} {bound:.6g} or {'lower' if rising else 'higher'}"
    return f"{_more_items(finding, limit)}passes once the {side} bound is {-gap:.4g} {away}; or with {loosened}"


def _more_items(finding: Finding, limit: float) -> str:
    """Where the value itself clears the limit, about how many items would make the interval narrow enough."""
    estimate = finding.estimate
    bound = None if estimate is None else estimate.lower if finding.at_least is not None else estimate.upper
    if finding.result is not Result.INCONCLUSIVE or estimate is None or bound is None or estimate.n < 2:
        return ""
    room = estimate.value - limit if finding.at_least is not None else limit - estimate.value
    if room <= 0:
        return ""
    # An interval's width goes with one over the square root of the number of items.
    needed = math.ceil(estimate.n * ((estimate.value - bound) / room) ** 2)
    return f"about {needed} items instead of {estimate.n} would decide it if the value stays; "


def _flip(each: Judged, verdict: Verdict) -> Flip:
    """What stands against the approval, before or after, and where both do, what is new in it."""
    then, now = tuple(holding_back(each.verdict)), tuple(holding_back(verdict))
    changed = tuple(r for r in now if r not in then) or tuple(r for r in then if r not in now)
    return Flip(
        version=each.version.uri,
        evaluation=each.evaluation,
        before=each.verdict.outcome,
        after=verdict.outcome,
        rules=changed or now or then,
        reason=verdict.reason,
    )
