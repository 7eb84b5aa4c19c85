"""Cases of a policy: evidence in, outcome out, as small YAML files beside the policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from gate.adapters.conditions import idle_rules
from gate.adapters.marked_yaml import read_marked
from gate.domain.checkpoint import Checkpoint, FileDigest, Frozen, Layout, Lineage, ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Defect, DefectCode, Estimate, Evidence, Measurement, Name, StageCost
from gate.domain.judging import judge
from gate.domain.policy import Policy
from gate.domain.verdict import Outcome, Result, Verdict

ALPHA = 0.05
SHOWN: tuple[Result, ...] = tuple(result for result in Result if result is not Result.WAIVED)
"""What a case can show of a rule: a waiver is an exception to a policy, and so in no case of it."""
Number = float | tuple[float | None, float, float | None]


class CaseEvidence(Frozen):
    """Evidence in short: ``name`` or ``name/capability`` to a number, or to ``[lower, value, upper]``."""

    margins: Mapping[str, float] = {}
    measurements: Mapping[str, Number] = {}
    defects: tuple[DefectCode, ...] = ()
    errors: tuple[str, ...] = ()
    unmeasured: Mapping[str, str] = {}
    layout: Layout = Layout.FULL
    parameters: int = Field(default=0, ge=0)
    base: str | None = None
    seconds: float = Field(default=0.0, ge=0)

    def expanded(self) -> Evidence:
        """As the judge takes it; the candidate's bytes are made up."""
        file = FileDigest(path="model.safetensors", sha256="0" * 64, size=1)
        return Evidence(
            key="0" * 64,
            candidate=Checkpoint(layout=self.layout, files=(file,), parameters=self.parameters),
            base_name=self.base,
            costs=(StageCost(stage="case", seconds=self.seconds),) if self.seconds else (),
            lineage=Lineage(),
            capabilities=tuple(self.margins),
            margins=self.margins,
            measurements=tuple(_measurement(key, number) for key, number in self.measurements.items()),
            defects=tuple(Defect(code=code, message=f"defect: {code}") for code in self.defects),
            errors=self.errors,
            unmeasured=self.unmeasured,
        )


class CaseVersion(Frozen):
    """The version that the evidence is on, in short; only a ``when`` asks for it."""

    name: str = "case"
    tags: Mapping[str, str] = {}

    def expanded(self) -> ModelVersion:
        """As the judge takes it."""
        return ModelVersion(name=self.name, version="1", created_ms=0, source="case", tags=self.tags)


class PolicyCase(Frozen):
    """What a policy must make of some evidence; ``not_passing`` names exactly the rules that do not pass, where given."""

    says: str = Field(min_length=1)
    version: CaseVersion | None = None
    evidence: CaseEvidence
    outcome: Outcome
    because: str = ""
    not_passing: tuple[str, ...] | None = None


def load_case(file: Path) -> PolicyCase:
    """The case of one file; ``InvalidInput`` says file, line, expected and found."""
    document = read_marked(file)
    try:
        case = PolicyCase.model_validate(document.value)
        case.evidence.expanded()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"]) or "the case"
        raise InvalidInput(f"{file}:{document.line(first['loc'])}: {place}: {first['msg']}") from error
    except ValueError as error:
        raise InvalidInput(f"{file}: {error}") from error
    return case


def differences(policy: Policy, case: PolicyCase) -> list[str]:
    """How the policy's verdict differs from what the case says; empty where it does not."""
    verdict = _judged(policy, case)
    found = []
    if verdict.outcome is not case.outcome:
        found.append(f"expected {case.outcome}, found {verdict.outcome}: {verdict.reason}")
    if case.because not in verdict.reason:
        found.append(f"expected a reason with {case.because!r}, found {verdict.reason!r}")
    found_open = list(dict.fromkeys(f.rule for f in verdict.findings if f.result is not Result.PASS))
    if case.not_passing is not None and set(found_open) != set(case.not_passing):
        found.append(f"expected these rules not to pass: {list(case.not_passing)}, found {found_open}")
    return found


def _judged(policy: Policy, case: PolicyCase) -> Verdict:
    evidence = case.evidence.expanded()
    version = None if case.version is None else case.version.expanded()
    return judge(policy, evidence, subject="case", now=0, idle=idle_rules(policy, evidence, version))


def _measurement(key: str, number: Number) -> Measurement:
    name, _, capability = key.partition("/")
    lower, value, upper = number if isinstance(number, tuple) else (number, number, number)
    alpha = ALPHA if isinstance(number, tuple) else 0.0
    estimate = Estimate(value=value, lower=lower, upper=upper, alpha=alpha)
    return Measurement(name=Name(name), capability=capability or None, estimate=estimate)


class CaseRun(Frozen):
    """What running a policy's cases showed. ``coverage`` tells for each rule in how many cases it had each result."""

    policy: str
    cases: int
    failures: Mapping[str, tuple[str, ...]]
    coverage: Mapping[str, Mapping[Result, int]]
    outcomes: Mapping[Outcome, int]

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Each rule with a result, and each outcome, that no case shows."""
        rules = [f"{rule}: {result}" for rule, seen in self.coverage.items() for result, n in seen.items() if not n]
        return (*rules, *(f"outcome: {outcome}" for outcome, n in self.outcomes.items() if not n))


def case_files(folder: Path) -> list[Path]:
    """The cases in a folder, by name."""
    return sorted(f for f in folder.glob("*.y*ml") if f.suffix in (".yaml", ".yml"))


def run_cases(policy: Policy, files: Sequence[Path]) -> CaseRun:
    """Every case against the policy, and what the cases leave unshown."""
    coverage = {rule.name: dict.fromkeys(SHOWN, 0) for rule in policy.rules}
    outcomes = dict.fromkeys(Outcome, 0)
    failures = {}
    for file in files:
        case = load_case(file)
        verdict = _judged(policy, case)
        outcomes[verdict.outcome] += 1
        for rule, result in {(f.rule, f.result) for f in verdict.findings}:
            coverage[rule][result] += 1
        if wrong := differences(policy, case):
            failures[str(file)] = tuple(wrong)
    return CaseRun(policy=policy.name, cases=len(files), failures=failures, coverage=coverage, outcomes=outcomes)
