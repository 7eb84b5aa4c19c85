"""Two verdicts side by side: which rules turned, and what they had measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.domain.verdict import Finding, Result, Verdict

_BAD = (Result.FAIL, Result.INCONCLUSIVE, Result.MISSING, Result.WAIVED, Result.PASS)


@dataclass(frozen=True, slots=True)
class Change:
    """One rule on one capability, in each of the two verdicts where it was asked."""

    rule: str
    capability: str | None
    one: Finding | None
    other: Finding | None

    @property
    def turned(self) -> bool:
        """Whether its result is another one."""
        return (self.one.result if self.one else None) != (self.other.result if self.other else None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two verdicts, their rules paired, and what makes them hard to compare."""

    one: Verdict
    other: Verdict
    changes: Sequence[Change]

    @property
    def cautions(self) -> list[str]:
        """What else differs than the candidate."""
        said = []
        if self.one.base_digest != self.other.base_digest:
            said.append("measured against different bases")
        if self.one.policy_digest != self.other.policy_digest:
            said.append("judged by different policies")
        if self.one.candidate_digest == self.other.candidate_digest and self.one.candidate_digest:
            said.append("the same bytes")
        return said

    def as_document(self) -> Mapping[str, Any]:
        """As JSON-ready values."""
        return {
            "outcomes": [self.one.outcome.value, self.other.outcome.value],
            "cautions": self.cautions,
            "rules": [
                {
                    "rule": change.rule,
                    "capability": change.capability,
                    "turned": change.turned,
                    "findings": [f.model_dump(mode="json") if f else None for f in (change.one, change.other)],
                }
                for change in self.changes
            ],
        }


def compared(one: Verdict, other: Verdict) -> Comparison:
    """The two, their rules paired by name and capability; what turned first, the worse of it before the better."""
    sides = [{(f.rule, f.capability): f for f in verdict.findings} for verdict in (one, other)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    changes = [Change(rule, about, *(side.get((rule, about)) for side in sides)) for rule, about in keys]
    return Comparison(one, other, sorted(changes, key=lambda c: (not c.turned, _rank(c.other))))


def _rank(finding: Finding | None) -> int:
    return len(_BAD) if finding is None else _BAD.index(finding.result)
