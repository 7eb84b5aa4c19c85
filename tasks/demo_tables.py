"""What the demo prints: stages while it runs, verdicts and capabilities in the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from gate.domain.evidence import Evidence, Name
from gate.domain.verdict import Outcome, Verdict
from gate.pages.numbers import ABSENT, compact, interval, percent, signed

WIDTH = 118
COLOURS = {
    Outcome.APPROVED: "green",
    Outcome.BLOCKED: "red",
    Outcome.NEEDS_REVIEW: "yellow",
    Outcome.ERROR: "magenta",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One fine-tune of the demo: its recipe, what a person should know of it, and the verdict it must get."""

    recipe: str
    told: str
    expected: Outcome
    base_tag: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What MLflow holds of one version in the end: its verdict, its evidence, and the run they lie in."""

    version: str
    candidate: Candidate
    verdict: Verdict
    evidence: Evidence
    run_id: str


def stage_of(row: Mapping[str, Any]) -> str:
    if row["state"] == "done":
        return "done" if row["projected"] else "writing back"
    return (
        f"{row['stage'] or row['state']} {100 * row['progress']:.0f} %"
        if row["progress"]
        else (row["stage"] or row["state"])
    )


def coloured(outcome: str) -> Text:
    return Text(outcome.replace("_", " "), style=f"bold {COLOURS[Outcome(outcome)]}")


def result_tables(results: Sequence[Result]) -> Iterator[Table]:
    """The closing tables: the verdicts at a glance, then what each capability kept and how sensitive it is."""
    glance = Table(title="Verdicts", title_justify="left", show_lines=True, width=WIDTH)
    glance.add_column("version", width=24)
    for column in ("moved", "basin position"):
        glance.add_column(column, no_wrap=True)
    glance.add_column("verdict and reason", ratio=1)
    for r in results:
        glance.add_row(
            f"{r.version}  {r.candidate.told}",
            _moved(r.evidence),
            _position(r.evidence),
            Text.assemble(coloured(r.verdict.outcome), "  ", r.verdict.reason),
        )
    yield glance
    detail = Table(title="What each kept, and how sensitive it is", title_justify="left", width=WIDTH)
    for column in ("version", "capability", "change (interval)", "toward the worst case", "worst small change"):
        detail.add_column(column, no_wrap=True)
    for result in results:
        if result.evidence.find(Name.DISPLACEMENT_NORM) is None:
            continue
        for place, row in enumerate(_capability_rows(result.evidence)):
            detail.add_row("" if place else result.version, *row)
        detail.add_section()
    yield detail


def _moved(evidence: Evidence) -> str:
    norm, relative = evidence.find(Name.DISPLACEMENT_NORM), evidence.find(Name.DISPLACEMENT_RELATIVE)
    return f"{compact(norm.value)} = {percent(relative.value)}" if norm and relative else ABSENT


def _position(evidence: Evidence) -> str:
    positions = {c: e.value for c in evidence.capabilities if (e := evidence.find(Name.BASIN_POSITION, c))}
    if not positions:
        return ABSENT
    nearest = max(positions, key=positions.__getitem__)
    return f"{compact(positions[nearest])} ({nearest})"


def _capability_rows(evidence: Evidence) -> Iterator[tuple[str, str, str, str]]:
    """Alignment is always known; the searched ratio only where the verdict still needed it."""
    for capability in evidence.capabilities:
        cosine = evidence.find(Name.WORST_CASE_ALIGNMENT, capability)
        z = evidence.find(Name.WORST_CASE_ALIGNMENT_Z, capability)
        ratio = evidence.find(Name.ADVERSARIAL_SENSITIVITY_RATIO, capability)
        yield (
            capability,
            interval(evidence.find(Name.RETENTION, capability), sign=True),
            f"cos {signed(cosine.value, 3)}, z {signed(z.value, 0)}" if cosine and z else ABSENT,
            f"{interval(ratio)} × base" if ratio else "not needed: decided before",
        )
