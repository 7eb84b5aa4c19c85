"""What a rule's finding says to a person: its limit, its result, what it is for."""

from collections.abc import Sequence

from gate.domain.verdict import Enforcement, Finding, Result
from gate.pages.numbers import ABSENT

ADVICE = (Enforcement.WARN, Enforcement.DRY_RUN)
WORDS = {
    Result.PASS: "pass",
    Result.FAIL: "fail",
    Result.INCONCLUSIVE: "inconclusive",
    Result.MISSING: "not measured",
    Result.WAIVED: "waived",
}
CONSEQUENCES = {
    Enforcement.BLOCK: "blocks",
    Enforcement.REVIEW: "asks for review",
    Enforcement.WARN: "only warns",
    Enforcement.DRY_RUN: "dry run",
}
_ORDER = (Result.FAIL, Result.INCONCLUSIVE, Result.MISSING, Result.WAIVED, Result.PASS)


def limit_of(finding: Finding) -> str:
    """A finding's limit in words.

    >>> from gate.domain.vocabulary import Name
    >>> given = {"rule": "r", "measurement": Name.HEADROOM, "capability": "c", "estimate": None, "sentence": ""}
    >>> limit_of(Finding(**given, at_least=-0.1, result=Result.PASS, enforcement=Enforcement.WARN))
    'at least −0.1'
    """
    if finding.at_least is not None:
        return f"at least {finding.at_least:g}".replace("-", "−")
    return f"at most {finding.at_most:g}".replace("-", "−") if finding.at_most is not None else ABSENT


def is_idle(finding: Finding) -> bool:
    """Advice that had no number to go by: it decides nothing and says nothing."""
    return finding.result is Result.MISSING and finding.enforcement in ADVICE


def by_rule(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Findings of each rule together: rules that decide against it first, and in each what did not pass first."""
    rules: dict[str, list[Finding]] = {}
    for finding in findings:
        if not is_idle(finding):
            rules.setdefault(finding.rule, []).append(finding)
    for of_one in rules.values():
        of_one.sort(key=lambda f: _ORDER.index(f.result))
    return sorted(rules.items(), key=lambda rule: (rule[1][0].enforcement in ADVICE, _ORDER.index(rule[1][0].result)))
