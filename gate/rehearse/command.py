"""``basin-gate policy test | explain | replay | diff | suggest``: try a policy before it decides anything."""

import json
import re
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from gate.adapters.conditions import idle_rules
from gate.adapters.policy_cases import CaseRun, case_files, run_cases
from gate.adapters.policy_files import load_policies, load_policy, policy_files, select_policy
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.evidence import Evidence
from gate.domain.judging import judge
from gate.domain.layers import loosened, rule_changes
from gate.domain.limits import suggest as suggest_limit
from gate.domain.policy import Policy, PolicySet
from gate.domain.reference import parse_reference
from gate.domain.rehearsal import Judged, would_change
from gate.domain.rehearsal import replay as replay_history
from gate.domain.verdict import Outcome, Verdict
from gate.pages.inert import inert
from gate.settings import settings

if TYPE_CHECKING:
    from gate.adapters.sql_ledger import SqlLedger

SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[str, typer.Option(help="How far back: a number and h, d or w.")]
Draft = Annotated[Path | None, typer.Option("--policy", help="Policy file or folder; GATE_POLICIES without it.")]


def run_tests(
    path: Annotated[Path, typer.Argument(help="Policy file or folder.")],
    cases: Annotated[
        Path | None, typer.Option(help="Folder of cases; without it cases/<file's name> beside the policy.")
    ] = None,
    complete: Annotated[
        bool, typer.Option(help="Also fail where a rule's result or an outcome is shown by no case.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the cases beside each policy and say what they leave unshown. Exit status 1 where one fails or none is there."""
    runs = [
        run_cases(load_policy(file), case_files(cases or file.parent / "cases" / file.stem))
        for file in policy_files(path)
    ]
    bad = any(run.failures or not run.cases or (complete and run.uncovered) for run in runs)
    _show(as_json, {"runs": [{**r.model_dump(mode="json"), "uncovered": r.uncovered} for r in runs]}, _told(runs))
    raise typer.Exit(1 if bad else 0)


def explain(
    target: Annotated[str, typer.Argument(help="models:/NAME/VERSION as the ledger knows it, or an evidence.json.")],
    policy: Draft = None,
    as_json: AsJson = False,
) -> None:
    """Say of each rule what was measured, its limit, the result, and what would change it."""
    policies = _policies(policy)
    if target.startswith("models:"):
        judged = _judged(_ledger(), target)
        version: ModelVersion | None = judged.version
        chosen, evidence = select_policy(policies, judged.version), judged.evidence
    else:
        version, chosen, evidence = None, policies.policies[0], _evidence(Path(target))
        if len(policies.policies) > 1:
            raise InvalidInput("expected one policy for a file of evidence, found several; name it with --policy FILE")
    if chosen is None:
        raise NotFound(f"expected a policy that speaks of {target}, found none; add one whose match covers it")
    idle = idle_rules(chosen, evidence, version)
    verdict = judge(chosen, evidence, subject=target, now=int(time.time()), idle=idle)
    rules = [
        {**f.model_dump(mode="json"), "would_change": would_change(f), "origin": chosen.origins.get(f.rule)}
        for f in verdict.findings
    ]
    shown = {**verdict.model_dump(mode="json"), "findings": rules, "idle": sorted(idle)}
    _show(as_json, shown, _explained(chosen, verdict, idle))


def replay(
    since: Since = "90d",
    policy: Draft = None,
    budget: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest part of past approvals that may be lost.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge stored evidence again: who would be decided otherwise, and by which rule. Changes nothing.

    Exit status 1 where more approvals are lost than the budget allows, or there was none to tell by.
    """
    policies = _policies(policy)
    history = _ledger().judged_since(_start(since))
    found = replay_history(((select_policy(policies, each.version), each) for each in history), idle_rules)
    over = found.exceeds(budget)
    lines = [
        f"{found.judged} versions judged again; {found.unmatched} that no policy speaks of",
        f"before: {_counts(found.before)}",
        f"after:  {_counts(found.after)}",
        f"approvals lost: {found.lost} of {found.approved_before}"
        + ("" if budget is None else f" (budget {budget:.3g}: {'exceeded' if over else 'kept'})"),
        *(f"  {flip.version}: {flip.before} → {flip.after} by {', '.join(flip.rules)}" for flip in found.flips),
        *(f"rule {rule}: {n}" for rule, n in found.by_rule.items()),
    ]
    if found.other_plan:
        lines.append(f"{found.other_plan} were measured under another plan than the policy's; measure them to be sure")
    shown = {**found.model_dump(mode="json"), "lost_rate": found.lost_rate, "budget": budget, "over_budget": over}
    _show(as_json, shown, lines)
    raise typer.Exit(1 if over else 0)


def diff(
    one: Annotated[Path, typer.Argument(help="Policy file.")],
    other: Annotated[Path, typer.Argument(help="The policy file to compare it with.")],
    tighten_only: Annotated[
        bool, typer.Option("--tighten-only", help="Refuse where OTHER might approve what ONE would not.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which rules were added, removed, tightened or loosened, and each key that differs. Exit status 1 only where --tighten-only refuses."""
    first, second = load_policy(one), load_policy(other)
    left, right, looser = _flat(first), _flat(second), loosened(first, second)
    changed = {key: (left.get(key), right.get(key)) for key in sorted(left | right) if left.get(key) != right.get(key)}
    rules = rule_changes(first, second)
    lines = [f"{key}: {_word(a)} → {_word(b)}" for key, (a, b) in changed.items()] or ["no difference"]
    shown = {
        "rules": rules,
        "changed": {k: {"one": a, "other": b} for k, (a, b) in changed.items()},
        "loosened": looser,
    }
    named = [f"rule {name}: {change}" for name, change in rules.items()]
    _show(as_json, shown, [*named, *lines, *(f"loosened: {each}" for each in looser)])
    raise typer.Exit(1 if tighten_only and looser else 0)


def suggest(
    rate: Annotated[float, typer.Option(help="Part of good versions that may fail to pass a rule.")] = 0.05,
    alpha: Annotated[float, typer.Option(help="Chance that the true rate lies outside its interval.")] = 0.05,
    since: Since = "90d",
    policy: Draft = None,
    good: Annotated[
        Path | None,
        typer.Option(help="File of versions known to be good, models:/NAME/VERSION a line; those approved without it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Suggest each rule's limit from what good versions measured. Exit status 1 where too few are there for a rule.

    The versions that were approved had to pass the limits of then: for a rule that decided, name good versions instead.
    """
    policies = _policies(policy)
    history = list(_good(_ledger().judged_since(_start(since)), good))
    found = {
        each.name: [
            suggest_limit(
                rule,
                (j.evidence for j in history if select_policy(policies, j.version) == each),
                rate=rate,
                alpha=alpha,
            )
            for rule in each.rules
        ]
        for each in policies.policies
    }
    lines = [
        f"{name}: {s.rule}: "
        + (
            f"no limit: {s.refused}"
            if s.limit is None
            else f"{s.key}: {s.limit:.6g} (now {s.now}; n {s.n}, {s.not_passing} would not pass; "
            f"rate {s.rate_lower:.4f} to {s.rate_upper:.4f} at {1 - alpha:.3g})"
        )
        for name, each in found.items()
        for s in each
    ]
    _show(as_json, {n: [s.model_dump(mode="json") for s in each] for n, each in found.items()}, lines)
    raise typer.Exit(1 if any(s.limit is None for each in found.values() for s in each) else 0)


def _policies(path: Path | None) -> PolicySet:
    from gate.bootstrap import build_policies

    return build_policies(settings()) if path is None else load_policies(path)


def _start(since: str) -> float:
    found = re.fullmatch(r"(\d{1,5})([hdw])", since)
    if found is None:
        raise InvalidInput(f"expected a number and h, d or w as in 90d, found {since!r}")
    return time.time() - int(found[1]) * SECONDS[found[2]]


def _judged(ledger: "SqlLedger", target: str) -> Judged:
    asked = parse_reference(target)
    if asked.version is None:
        raise InvalidInput(f"expected models:/NAME/VERSION, found {target!r}; an alias may move")
    for each in ledger.judged_since(0, asked.name):
        if each.version.version == asked.version:
            return each
    raise NotFound(f"expected a verdict on {target} in the ledger, found none; check GATE_DATABASE_URL")


def _good(history: Iterable[Judged], file: Path | None) -> Iterable[Judged]:
    if file is None:
        return [each for each in history if each.verdict.outcome is Outcome.APPROVED]
    wanted = {parse_reference(line.strip()) for line in _text(file).splitlines() if line.strip()}
    named = ((parse_reference(f"models:/{j.version.name}/{j.version.version}"), j) for j in history)
    found = {reference: judged for reference, judged in named if reference in wanted}
    if absent := wanted - set(found):
        raise NotFound(f"expected a verdict on each version in {file}, found none on {len(absent)}; look further back")
    return [found[each] for each in wanted]


def _evidence(file: Path) -> Evidence:
    try:
        return Evidence.model_validate_json(_text(file))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise InvalidInput(f"{file}: {place}: {first['msg']}; expected the evidence.json of an evaluation") from error


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: expected a text file, found: {error}") from error


def _told(runs: Iterable[CaseRun]) -> Iterable[str]:
    for run in runs:
        yield f"{run.policy}: {run.cases - len(run.failures)} of {run.cases} cases hold"
        if not run.cases:
            yield "  expected cases, found none; write cases/<policy>/<case>.yaml beside the policy"
        yield from (f"  {file}: {each}" for file, wrong in run.failures.items() for each in wrong)
        yield from (f"  shown by no case: {each}" for each in run.uncovered)


def _explained(policy: Policy, verdict: Verdict, idle: Collection[str]) -> Iterable[str]:
    yield f"{verdict.outcome}: {verdict.reason}"
    yield from (f"[{d.enforcement}] defect {d.defect.code}: {d.defect.message}" for d in verdict.defects)
    for finding in verdict.findings:
        yield f"[{finding.enforcement}] {finding.rule}: {finding.result}: {finding.sentence}"
        yield f"    {would_change(finding)}"
        if origin := policy.origins.get(finding.rule):
            yield f"    written in {origin}"
    for rule in policy.rules:
        if rule.name in idle:
            yield f"[idle] {rule.name}: does not apply, since when is false: {rule.when}"


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {word}" for word, n in counted.items()) or "none"


def _flat(policy: Policy) -> dict[str, Any]:
    """A policy as one level of keys; a rule is known by its name, so that moving it is no change."""
    document = policy.model_dump(mode="json")
    rules = {rule["name"]: rule for rule in document.pop("rules")}
    return dict(_leaves({**document, "rules": rules}, ""))


def _leaves(value: Any, place: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield place, value
        return
    for key, part in value.items():
        yield from _leaves(part, f"{place}.{key}" if place else str(key))


def _word(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _show(as_json: bool, document: Any, lines: Iterable[str]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False) if as_json else "\n".join(inert(x, 4000) for x in lines)
    sys.stdout.write(text + "\n")


def _ledger() -> "SqlLedger":
    # Here, so that the command line starts where there is neither a database nor a broker to talk to.
    from gate.bootstrap import build_ledger

    return build_ledger(settings())
