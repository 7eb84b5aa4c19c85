"""The report of a verdict as Markdown: what was decided, why, how far it is from the edge, what it cost."""

from collections.abc import Iterator
from html import escape

from gate.domain.evidence import DefectCode, Evidence, Name
from gate.domain.prompts import NO_PROMPTS, ChangedPrompt, ChangedPrompts
from gate.domain.verdict import Enforcement, Result, Verdict
from gate.pages.aligned import aligned
from gate.pages.answered import WAYS, WAYS_NOTE, answered
from gate.pages.beside import beside, strongest
from gate.pages.inert import inert, inert_lines
from gate.pages.numbers import ABSENT, compact, interval, percent, signed
from gate.pages.prompts import WARNING, judged, told
from gate.pages.rules import is_idle, limit_of
from gate.pages.wording import NEXT, TITLES

LITTLE = 0.001
"""A share of the worst case below which its exact size, or that it helps, tells nothing."""
RESULTS = {
    Result.PASS: "pass",
    Result.FAIL: "**fail**",
    Result.INCONCLUSIVE: "inconclusive",
    Result.MISSING: "not measured",
    Result.WAIVED: "waived",
}


def text(value: str, limit: int = 400) -> str:
    """Foreign text made inert: no HTML, no Markdown table breaks, no control characters, bounded length."""
    clean = escape(inert(value, limit), quote=False)
    for mark in "\\`*_[]|#~":
        clean = clean.replace(mark, "\\" + mark)
    return clean


def markdown(
    verdict: Verdict,
    evidence: Evidence,
    subject: str,
    pictures: tuple[str, ...] = (),
    prompts: ChangedPrompts = NO_PROMPTS,
) -> str:
    """The whole report. ``subject`` is the version's name for people; ``pictures`` are artifact file names; ``prompts``
    those whose answers changed."""
    parts = [
        *_head(verdict, subject),
        *_position(evidence),
        *_spread(evidence),
        *_aligned(evidence),
        *_capabilities(evidence),
        *_answered(evidence),
        *_beside(evidence),
        *_rules(verdict),
        *_defects(verdict),
        *_prompts(prompts),
        *_pictures(pictures),
        *_provenance(verdict, evidence),
    ]
    return "\n".join(parts) + "\n"


def _head(verdict: Verdict, subject: str) -> Iterator[str]:
    yield f"# {TITLES[verdict.outcome]}: {text(subject)}"
    yield ""
    yield text(verdict.reason, 2000)
    yield ""
    yield NEXT[verdict.outcome]
    yield ""


def _position(evidence: Evidence) -> Iterator[str]:
    norm = evidence.find(Name.DISPLACEMENT_NORM)
    if norm is None:
        return
    relative, rms = evidence.find(Name.DISPLACEMENT_RELATIVE), evidence.find(Name.DISPLACEMENT_RMS)
    changed = evidence.find(Name.CHANGED_FRACTION)
    yield "## How far it moved"
    yield ""
    yield "| from the base | |"
    yield "|---|---|"
    yield f"| displacement (L2 norm) | {compact(norm.value)} |"
    yield f"| relative to the base's weights | {percent(relative.value) if relative else ABSENT} |"
    yield f"| per weight (RMS) | {compact(rms.value) if rms else ABSENT} |"
    yield f"| weights changed | {percent(changed.value) if changed else ABSENT} |"
    yield ""
    largest = sorted(evidence.layers, key=lambda layer: layer.norm, reverse=True)[:5]
    if largest:
        yield (
            "Largest moves: "
            + ", ".join(
                f"{text(layer.tensor, 80)} ({percent(layer.norm / layer.base_norm) if layer.base_norm else compact(layer.norm)})"
                for layer in largest
            )
            + "."
        )
        yield ""


def _spread(evidence: Evidence) -> Iterator[str]:
    """Which matrices moved along few directions; nothing where that was not asked for."""
    found = strongest(evidence)
    if not found:
        return
    yield "| matrix | along one direction | directions (stable rank) | largest singular value | moved, of its own size |"
    yield "|---|---|---|---|---|"
    for each in found:
        cells = (text(each.tensor, 80), each.share, each.directions, each.largest, each.moved)
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _aligned(evidence: Evidence) -> Iterator[str]:
    """How the layers furthest from chance lie to the alignment step; nothing where that was not measured."""
    found = aligned(evidence)
    if not found:
        return
    yield "## Where the alignment was touched"
    yield ""
    yield "| layer | in its directions | of a random update | times chance | along the step, cosine |"
    yield "|---|---|---|---|---|"
    for each in found:
        yield f"| {text(each.name, 60)} | {each.share} | {each.by_chance} | {each.ratio} | {each.cosine} |"
    yield ""
    yield "± is one standard deviation of random updates of the same size; a negative cosine goes back on the alignment."
    yield ""


def _answered(evidence: Evidence) -> Iterator[str]:
    found = answered(evidence)
    if not found:
        return
    yield "## How it answered what should be refused"
    yield ""
    yield f"| capability | requests | {' | '.join(WAYS.values())} |"
    yield "|---|---|" + "---|" * len(WAYS)
    for row in found:
        yield f"| {text(row.capability, 60)} | {row.requests} | {' | '.join(row.shares)} |"
    yield ""
    yield WAYS_NOTE
    yield ""


def _beside(evidence: Evidence) -> Iterator[str]:
    found = beside(evidence)
    if not found:
        return
    yield "## Measured because the policy asks"
    yield ""
    for each in found:
        numbers = ", ".join(f"{text(capability, 60)} {number}".strip() for capability, number in each.found)
        yield f"- {each.name} ({each.unit}): {numbers}. {each.means}"
    yield ""


def _capabilities(evidence: Evidence) -> Iterator[str]:
    if not evidence.capabilities:
        return
    yield "## What it kept"
    yield ""
    yield "| capability | score | change from base | margin | random move of this size |"
    yield "|---|---|---|---|---|"
    for capability in evidence.capabilities:
        margin = f"{evidence.margins[capability]:g}" if capability in evidence.margins else ABSENT
        change = _cell(evidence, Name.RETENTION, capability, sign=True)
        control = _cell(evidence, Name.RETENTION_RANDOM, capability, sign=True)
        yield f"| {text(capability, 60)} | {_cell(evidence, Name.SCORE, capability)} | {change} | {margin} | {control} |"
    yield ""
    yield "Change is candidate minus base on the same items, with its interval; it may not fall below minus the margin."
    yield ""
    yield "## How near the edge it is"
    yield ""
    yield "| capability | basin position | headroom | toward the worst case | worst small change, vs base |"
    yield "|---|---|---|---|---|"
    for capability in evidence.capabilities:
        yield _edge_row(evidence, capability)
    yield ""
    yield (
        "Basin position is the move's RMS over the largest random noise the base survives: 1 is the edge for a *random* "
        "direction. A chosen direction can leave the basin far sooner. Headroom says how many times its own update the "
        "fine-tune could still go on; *toward the worst case* is the cosine of the update with the base's loss gradient "
        "(z: in standard deviations of a random update); the last column is the loss that a searched small weight change "
        "adds, against the base's."
    )
    yield ""
    yield from _answers(evidence)
    yield from _certificate(evidence)
    yield from _reasons(evidence)


def _answers(evidence: Evidence) -> Iterator[str]:
    """What one reading of the base's own answers says; nothing where it was not done."""
    if not any(evidence.find(Name.FORWARD_KL, c) for c in evidence.capabilities):
        return
    yield "## How differently it answers"
    yield ""
    yield "| capability | KL, first token | KL, whole answer | same answers, at least | sampled, at least | loss along the update |"
    yield "|---|---|---|---|---|---|"
    for capability in evidence.capabilities:
        cells = (Name.FORWARD_KL_FIRST_TOKEN, Name.FORWARD_KL, Name.GREEDY_AGREEMENT, Name.OVERLAP_BOUND)
        shown = [text(capability, 60), *(_cell(evidence, name, capability) for name in cells)]
        yield "| " + " | ".join([*shown, _loss(evidence, capability)]) + " |"
    yield ""
    yield (
        "KL is the divergence from the base's answers to the candidate's, in nats: how differently it goes on, not how much "
        "worse. *At least* are lower bounds of its score, greedy and sampled; a low one says little. The loss is in nats per "
        "token; z says by how many standard deviations it exceeds that of random updates of this size, and the share is of the "
        "worst update of this size that a search found."
    )
    yield ""


def _loss(evidence: Evidence, capability: str) -> str:
    z = evidence.find(Name.LOSS_INCREASE_Z, capability)
    share = evidence.find(Name.LOSS_INCREASE_OF_WORST, capability)
    shown = [_cell(evidence, Name.LOSS_INCREASE, capability, sign=True)]
    shown += [f"z {signed(z.value, 0)}"] if z else []
    shown += (
        [f"{percent(share.value) if share.value > LITTLE else f'under {percent(LITTLE)}'} of the worst"]
        if share
        else []
    )
    return ", ".join(shown)


def _certificate(evidence: Evidence) -> Iterator[str]:
    """The basin paper's certificate, said to be vacuous where it is."""
    norm = evidence.find(Name.DISPLACEMENT_NORM)
    found = {c: r.value for c in evidence.capabilities if (r := evidence.find(Name.CERTIFIED_RADIUS, c))}
    if norm is None or not found:
        return
    empty = [c for c in found if (v := evidence.find(Name.CERTIFICATE_VACUOUS, c)) and v.value]
    says = f"it is vacuous for {text(', '.join(empty), 400)}" if empty else "it holds here"
    yield (
        f"The isotropic smoothing certificate reaches updates of norm {compact(max(found.values()))} at most; this one has "
        f"{compact(norm.value)}: {says}. It speaks of the model with noise added, and decides nothing."
    )
    yield ""


def _edge_row(evidence: Evidence, capability: str) -> str:
    z = evidence.find(Name.WORST_CASE_ALIGNMENT_Z, capability)
    alignment = _cell(evidence, Name.WORST_CASE_ALIGNMENT, capability, sign=True)
    cells = [
        text(capability, 60),
        _cell(evidence, Name.BASIN_POSITION, capability),
        _cell(evidence, Name.HEADROOM, capability),
        alignment + (f", z {z.value:+.0f}".replace("-", "−") if z else ""),
        _cell(evidence, Name.ADVERSARIAL_SENSITIVITY_RATIO, capability),
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(evidence: Evidence, name: Name, capability: str, *, sign: bool = False) -> str:
    estimate = evidence.find(name, capability)
    if estimate is not None:
        return interval(estimate, sign=sign)
    return "not measured" if f"{name}/{capability}" in evidence.unmeasured else ABSENT


def _reasons(evidence: Evidence) -> Iterator[str]:
    """Why something was not measured, each reason once."""
    because: dict[str, list[str]] = {}
    for name, why in evidence.unmeasured.items():
        because.setdefault(why, []).append(name)
    for why, names in because.items():
        measurements = sorted({name.split("/")[0] for name in names})
        yield f"Not measured ({text(why, 200)}): {text(', '.join(measurements), 400)}."
        yield ""


def _rules(verdict: Verdict) -> Iterator[str]:
    """Every rule that met a number or decides, what did not pass first; then why each of those did not."""
    idle = [f for f in verdict.findings if is_idle(f)]
    shown = sorted((f for f in verdict.findings if f not in idle), key=lambda f: f.result is Result.PASS)
    yield f"## Rules of policy {text(verdict.policy)}"
    yield ""
    yield "| rule | measured | limit | result | if not passed |"
    yield "|---|---|---|---|---|"
    for finding in shown:
        about = finding.rule + (f" / {finding.capability}" if finding.capability else "")
        yield (
            f"| {text(about, 120)} | {interval(finding.estimate, sign=finding.measurement == Name.RETENTION)} "
            f"| {limit_of(finding)} | {RESULTS[finding.result]} | {finding.enforcement} |"
        )
    yield ""
    for finding in shown:
        if finding.result is not Result.PASS:
            yield f"- {text(finding.sentence, 600)}"
    if idle:
        yield f"- Advice that had no number to go by: {text(', '.join(sorted({f.rule for f in idle})))}."
    yield ""


def _defects(verdict: Verdict) -> Iterator[str]:
    if verdict.defects:
        yield "## The files themselves"
        yield ""
        for found in verdict.defects:
            loud = "**" if found.enforcement is Enforcement.BLOCK else ""
            yield f"- {loud}{DefectCode(found.defect.code).replace('_', ' ')}{loud} ({found.enforcement}): {text(found.defect.message, 600)}"
        yield ""
    if verdict.errors:
        yield "## Errors"
        yield ""
        for error in verdict.errors:
            yield f"- {text(error, 600)}"
        yield ""


def _prompts(prompts: ChangedPrompts) -> Iterator[str]:
    """The prompts whose answers changed, folded where the reader folds; nothing where none were kept."""
    if not prompts.capabilities:
        return
    yield "## Prompts that changed"
    yield ""
    yield WARNING
    yield ""
    for each in prompts.capabilities:
        yield f"<details><summary>{escape(inert(each.capability, 60))}: {told(each)}</summary>"
        yield ""
        for found in each.changed:
            yield from _prompt(found)
        yield "</details>"
        yield ""


def _prompt(found: ChangedPrompt) -> Iterator[str]:
    options = [f"base {o.base}, candidate {o.candidate}: {o.text}" for o in found.options]
    for name, said in (
        (f"prompt {found.item}", found.prompt),
        ("expected", found.expected),
        (f"base ({judged(found.base_score)})", found.base),
        (f"candidate ({judged(found.candidate_score)})", found.candidate),
        *(("log-likelihood per byte, nats", option) for option in options),
    ):
        yield f"{name}:"
        yield ""
        # Indented: nothing in it is read as Markdown or HTML.
        yield from (f"    {line}" for line in inert_lines(said).split("\n"))
        yield ""


def _pictures(pictures: tuple[str, ...]) -> Iterator[str]:
    for picture in pictures:
        yield f"![{text(picture)}]({picture})"
        yield ""


def _provenance(verdict: Verdict, evidence: Evidence) -> Iterator[str]:
    yield "## Provenance"
    yield ""
    rows = {
        "candidate sha256": verdict.candidate_digest or ABSENT,
        "base": f"{evidence.base_name or ABSENT} {verdict.base_digest or ''} (found by: {evidence.lineage.found_by})",
        "suite": f"{evidence.suite or ABSENT} {evidence.suite_digest or ''}",
        "policy": f"{verdict.policy} {verdict.policy_digest}",
        "evidence key": verdict.evidence_key,
        "seed": str(evidence.seed),
        "cost": "; ".join(f"{c.stage} {c.seconds:.1f} s, {c.forwards} forward passes" for c in evidence.costs)
        or ABSENT,
        **dict(evidence.provenance),
    }
    yield "| | |"
    yield "|---|---|"
    for name, value in rows.items():
        yield f"| {text(name)} | {text(value)} |"
    yield ""
