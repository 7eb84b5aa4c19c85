"""The report of a verdict as one HTML file that needs nothing else: no request, no script, no font."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from gate.domain.evidence import MEANINGS, Estimate, Evidence, Name
from gate.domain.prompts import NO_PROMPTS, ChangedPrompts
from gate.domain.sentences import decimals
from gate.domain.verdict import Enforcement, Finding, Outcome, Result, Verdict
from gate.pages.aligned import aligned
from gate.pages.answered import WAYS, WAYS_NOTE, answered
from gate.pages.beside import beside, strongest
from gate.pages.charts.basin import no_end, panels, state, where, worst_first
from gate.pages.charts.bullets import Range, bullet, change_strip, share_bar, span
from gate.pages.charts.heat import heat_map
from gate.pages.numbers import ABSENT, compact, interval, percent, signed
from gate.pages.prompts import WARNING, groups
from gate.pages.rendering import document_policy, render, style
from gate.pages.rules import CONSEQUENCES, WORDS, by_rule, is_idle, limit_of
from gate.pages.wording import FAILED, MARKS, NEXT, TITLES

SMALLEST_SHARE = 0.001
"""A share of the worst case below which its exact size, or that it helps, tells nothing."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One row of what the candidate kept."""

    capability: str
    state: str
    before: str
    after: str
    change: str
    margin: str
    control: str
    strip: Markup | None


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One finding of a rule as it is shown."""

    about: str
    measured: str
    limit: str
    result: str
    word: str
    graph: Markup | None
    sentence: str


@dataclass(frozen=True, slots=True)
class RuleBlock:
    """One rule with all its findings."""

    name: str
    measures: str
    consequence: str
    rows: tuple[RuleRow, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """Which way the update went, for one capability: between a random and the worst direction of its length."""

    capability: str
    loss: str
    z: str
    share: str
    bar: Markup | None
    alignment: str
    fragility: str


def html(verdict: Verdict, evidence: Evidence, subject: str, prompts: ChangedPrompts = NO_PROMPTS) -> str:
    """The whole document. ``subject`` is the version's name for people; ``prompts`` those whose answers changed."""
    return render(
        "report.html",
        policy=document_policy(),
        style=style(),
        verdict=verdict,
        evidence=evidence,
        subject=subject,
        title=TITLES[verdict.outcome],
        mark=MARKS[verdict.outcome],
        next=NEXT[verdict.outcome],
        tiles=tiles(evidence, verdict),
        panels=panels(evidence),
        drawn={
            "control": any(evidence.find(Name.RETENTION_RANDOM, c) for c in evidence.capabilities),
            "line": any(curve.kind == "line" for curve in evidence.curves),
        },
        distance=where(evidence),
        kept=kept(evidence),
        rules=rules(verdict),
        idle=sorted({f.rule for f in verdict.findings if is_idle(f)}),
        heat=heat_map(evidence.layers),
        matrices=strongest(evidence),
        aligned=aligned(evidence),
        ways=ways(evidence),
        answers=answers(evidence),
        answered=answered(evidence),
        answered_columns=tuple(WAYS.values()),
        answered_note=WAYS_NOTE,
        beside=beside(evidence),
        prompts=groups(prompts),
        warning=WARNING,
        certificate=certificate(evidence),
        unmeasured=unmeasured(evidence),
        costs=costs(evidence),
        provenance=provenance(verdict, evidence),
        command=command(verdict, evidence),
        judged=moment(verdict.judged_at),
        expires=moment(verdict.expires_at),
        approved=verdict.outcome is Outcome.APPROVED,
        loud=Enforcement.BLOCK,
    )


def failure(subject: str, reason: str) -> str:
    """The document of an evaluation that ended without a verdict."""
    given = {"subject": subject, "reason": reason, "next": FAILED}
    return render("failure.html", policy=document_policy(), style=style(), **given)


def moment(at: float) -> str:
    """A time for people, in UTC.

    >>> moment(0)
    '1970-01-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def tiles(evidence: Evidence, verdict: Verdict) -> list[tuple[str, str, str]]:
    """The four numbers that are looked for first: what it is, the number, what it means."""
    moved = evidence.find(Name.DISPLACEMENT_RELATIVE)
    held = [c for c in evidence.capabilities if state(evidence, c) == "kept"]
    known = [c for c in evidence.capabilities if evidence.find(Name.RETENTION, c)]
    position = _extreme(evidence, Name.BASIN_POSITION, largest=True)
    room = _extreme(evidence, Name.HEADROOM, largest=False)
    passed = sum(f.result is Result.PASS for f in verdict.findings)
    checked = sum(not is_idle(f) for f in verdict.findings)
    shown = [
        ("moved", percent(moved.value) if moved else ABSENT, "of the norm of the base's weights"),
        ("kept", f"{len(held)} of {len(known)}" if known else ABSENT, "capabilities, beyond doubt"),
        ("nearest edge", percent(position[1].value) if position else ABSENT, _about(position, "of the way out of the basin")),
        ("least headroom", _room(room) if room else ABSENT, _about(room, "further along its own direction")),
    ]  # fmt: skip
    return shown if known or moved else [("checks passed", f"{passed} of {checked}", "nothing was measured")]


def _room(room: tuple[str, Estimate]) -> str:
    return f"{'≥ ' if no_end(room[1]) else ''}{compact(room[1].value)} ×"


def _about(found: tuple[str, Estimate] | None, meaning: str) -> str:
    return f"{meaning} ({found[0]})" if found else "not measured"


def _extreme(evidence: Evidence, name: Name, *, largest: bool) -> tuple[str, Estimate] | None:
    found = [(c, e) for c in evidence.capabilities if (e := evidence.find(name, c))]
    pick = max if largest else min
    return pick(found, key=lambda each: each[1].value) if found else None


def kept(evidence: Evidence) -> list[Kept]:
    """Each capability against the base."""
    changes = {c: evidence.find(Name.RETENTION, c) for c in worst_first(evidence, evidence.capabilities)}
    over = _changes_range(evidence, list(changes.values()))
    return [_kept(evidence, capability, change, over) for capability, change in changes.items()]


def _changes_range(evidence: Evidence, changes: Sequence[Estimate | None]) -> Range:
    known = [c for c in changes if c is not None]
    lows = [c.value if c.lower is None else c.lower for c in known] + [-1.5 * m for m in evidence.margins.values()]
    highs = [c.value if c.upper is None else c.upper for c in known]
    return Range(min([-0.15, *lows]) - 0.02, max([0.05, *highs]) + 0.02)


def _kept(evidence: Evidence, capability: str, change: Estimate | None, over: Range) -> Kept:
    score, margin = evidence.find(Name.SCORE, capability), evidence.margins.get(capability)
    least = decimals(change, Name.RETENTION, None if margin is None else -margin) if change else 2
    before = min(1.0, max(0.0, score.value - change.value)) if score and change else None
    return Kept(
        capability=capability,
        state=state(evidence, capability) if change else "unmeasured",
        before=ABSENT if before is None else f"{before:.2f}",
        after=interval(score, least=2),
        change=interval(change, sign=True, least=least),
        margin=ABSENT if margin is None else f"{margin:g}",
        control=interval(evidence.find(Name.RETENTION_RANDOM, capability), sign=True, least=2),
        strip=change_strip(change, margin, over, least),
    )


def rules(verdict: Verdict) -> list[RuleBlock]:
    """Every rule that met a number or decides; those that decide against it first."""
    return [_rule(name, findings) for name, findings in by_rule(verdict.findings)]


def _rule(name: str, findings: Sequence[Finding]) -> RuleBlock:
    over, meaning = span(findings), MEANINGS[findings[0].measurement]
    rows = tuple(
        RuleRow(
            about={None: "whole checkpoint", "*": "each capability"}.get(finding.capability, finding.capability or ""),
            measured=_measured(finding),
            limit=limit_of(finding),
            result=finding.result.value,
            word=WORDS[finding.result],
            graph=bullet(finding, over),
            sentence="" if finding.result is Result.PASS else finding.sentence,
        )
        for finding in findings
    )
    measures = f"{findings[0].measurement.replace('_', ' ')}, in {meaning.unit}: {meaning.sentence}"
    return RuleBlock(name, measures, CONSEQUENCES[findings[0].enforcement], rows)


def _measured(finding: Finding) -> str:
    """The number with as many decimals as tell it and its bounds from the limit."""
    if finding.estimate is None:
        return ABSENT
    limit = finding.at_most if finding.at_least is None else finding.at_least
    least = decimals(finding.estimate, finding.measurement, limit)
    return interval(finding.estimate, sign=finding.measurement is Name.RETENTION, least=least)


def ways(evidence: Evidence) -> list[Way]:
    """Where the update lies between random and worst; empty where nobody looked."""
    looked = (Name.LOSS_INCREASE, Name.WORST_CASE_ALIGNMENT, Name.ADVERSARIAL_SENSITIVITY_RATIO)
    return [_way(evidence, c) for c in evidence.capabilities if any(evidence.find(n, c) for n in looked)]


def _way(evidence: Evidence, capability: str) -> Way:
    z, share = (evidence.find(n, capability) for n in (Name.LOSS_INCREASE_Z, Name.LOSS_INCREASE_OF_WORST))
    alignment = evidence.find(Name.WORST_CASE_ALIGNMENT, capability)
    alignment_z = evidence.find(Name.WORST_CASE_ALIGNMENT_Z, capability)
    told = ABSENT if share is None else percent(share.value) if share.value > SMALLEST_SHARE else f"under {percent(SMALLEST_SHARE)}"  # fmt: skip
    aligned = ABSENT if alignment is None else signed(alignment.value, 4)
    return Way(
        capability=capability,
        loss=interval(evidence.find(Name.LOSS_INCREASE, capability), sign=True),
        z=ABSENT if z is None else signed(z.value, 0),
        share=told,
        bar=share_bar(max(0.0, share.value), f"{capability}: {told} of the worst loss found") if share else None,
        alignment=aligned + (f" (z {signed(alignment_z.value, 0)})" if alignment_z else ""),
        fragility=interval(evidence.find(Name.ADVERSARIAL_SENSITIVITY_RATIO, capability), least=1),
    )


def answers(evidence: Evidence) -> list[tuple[str, ...]]:
    """What one reading of the base's own answers says; empty where it was not done."""
    names = (Name.FORWARD_KL_FIRST_TOKEN, Name.FORWARD_KL, Name.GREEDY_AGREEMENT, Name.OVERLAP_BOUND)
    read = [c for c in evidence.capabilities if evidence.find(Name.FORWARD_KL, c)]
    return [(c, *(interval(evidence.find(name, c)) for name in names)) for c in read]


def certificate(evidence: Evidence) -> str:
    """What the smoothing certificate says, and that it is vacuous where it is; empty without one."""
    norm = evidence.find(Name.DISPLACEMENT_NORM)
    found = {c: r.value for c in evidence.capabilities if (r := evidence.find(Name.CERTIFIED_RADIUS, c))}
    if norm is None or not found:
        return ""
    empty = [c for c in found if (v := evidence.find(Name.CERTIFICATE_VACUOUS, c)) and v.value]
    says = f"it is vacuous for {', '.join(empty)}" if empty else "it holds here"
    reach = max(found.values())
    return (
        f"The isotropic smoothing certificate reaches {f'updates of norm {compact(reach)} at most' if reach else 'no update at all'}; this one "
        f"has norm {compact(norm.value)}: {says}. It speaks of the model with noise added, and decides nothing."
    )


def unmeasured(evidence: Evidence) -> list[tuple[str, str]]:
    """Why something was not measured, each reason once, with what it concerns."""
    because: dict[str, set[str]] = {}
    for name, why in evidence.unmeasured.items():
        because.setdefault(why, set()).add(name.split("/")[0].replace("_", " "))
    return [(why, ", ".join(sorted(names))) for why, names in because.items()]


def costs(evidence: Evidence) -> list[tuple[str, str, str, str, int]]:
    """Each stage: name, seconds, forward passes, peak memory, and its share of the time in percent."""
    total = sum(cost.seconds for cost in evidence.costs) or 1.0
    return [
        (c.stage, f"{c.seconds:.1f} s", f"{c.forwards:,}".replace(",", "\u202f"), f"{c.peak_bytes / 2**30:.2f} GiB", round(100 * c.seconds / total))
        for c in evidence.costs
    ]  # fmt: skip


def provenance(verdict: Verdict, evidence: Evidence) -> Mapping[str, str]:
    """What the verdict is bound to."""
    return {
        "candidate sha256": verdict.candidate_digest or ABSENT,
        "base": evidence.base_name or ABSENT,
        "base sha256": verdict.base_digest or ABSENT,
        "base found by": evidence.lineage.found_by,
        "suite": f"{evidence.suite or ABSENT} {evidence.suite_digest or ''}",
        "policy": f"{verdict.policy} {verdict.policy_digest}",
        "plan": evidence.plan.digest,
        "evidence key": verdict.evidence_key,
        "evidence sha256": verdict.evidence_digest,
        "seed": str(evidence.seed),
        **dict(evidence.provenance),
    }


def command(verdict: Verdict, evidence: Evidence) -> str:
    """The command that measures and judges the same again; empty where no suite was chosen."""
    if not evidence.suite:
        return ""
    words = ["basin-gate", "assess", "--base", "BASE", "--candidate", "CANDIDATE", "--suite", evidence.suite]
    words += ["--policy", "policy.yaml", "--policy-name", verdict.policy, "--report", "report.html"]
    return shlex.join(words)
