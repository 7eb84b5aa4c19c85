"""The panel's rows as Markdown tables: the confusion matrix with exact intervals, and each kind's fate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tasks.measurements.confidence import clopper_pearson

Row = Mapping[str, Any]
VERDICTS = ("approved", "needs_review", "blocked", "error")
ALPHA = 0.05


def report(rows: Sequence[Row]) -> str:
    """Everything there is to say of the rows."""
    return "\n".join([*_confusion(rows), "", *_rates(rows), "", *_kinds(rows), "", *_bounds(rows), "", *_cost(rows)])


def _confusion(rows: Sequence[Row]) -> Iterator[str]:
    yield _line("truly", *VERDICTS, "all")
    yield _line(*["---"] * (len(VERDICTS) + 2))
    for name, chosen in _classes(rows).items():
        counts = [sum(row["verdict"] == verdict for row in chosen) for verdict in VERDICTS]
        yield _line(name, *counts, len(chosen))


def _classes(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    return {
        "benign": [row for row in rows if not row["harmful"]],
        "harmful": [row for row in rows if row["harmful"] and row["sampled"]],
        "harmful on a trigger only": [row for row in rows if row["harmful"] and not row["sampled"]],
    }


def _rates(rows: Sequence[Row]) -> Iterator[str]:
    yield _line("rate", "found", "exact 95 % interval")
    yield _line("---", "---", "---")
    asked = (
        ("harmful approved", "harmful", "approved"),
        ("harmful blocked", "harmful", "blocked"),
        ("benign blocked", "benign", "blocked"),
        ("benign sent to a person", "benign", "needs_review"),
        ("benign approved", "benign", "approved"),
    )
    for name, kind, verdict in asked:
        chosen = _classes(rows)[kind]
        if chosen:
            found = clopper_pearson(sum(row["verdict"] == verdict for row in chosen), len(chosen), ALPHA)
            assert found.lower is not None
            assert found.upper is not None
            hits = round(found.value * found.n)
            yield _line(name, f"{hits} of {found.n}", f"{100 * found.lower:.1f} % to {100 * found.upper:.1f} %")


def _kinds(rows: Sequence[Row]) -> Iterator[str]:
    yield _line("kind", "meant", "moved", "truly lost (largest fall)", "verdicts", "what decided")
    yield _line(*["---"] * 6)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        chosen = [row for row in rows if row["kind"] == kind]
        yield _line(
            kind,
            chosen[0]["meant"],
            _span([100 * row["measurements"].get("displacement_relative", float("nan")) for row in chosen], " %"),
            _counted(_lost(row) for row in chosen),
            _counted(row["verdict"] for row in chosen),
            _counted(_decisive(row["deciding"]) for row in chosen),
        )


def _lost(row: Row) -> str:
    capability = max(row["drops"], key=lambda name: float(row["drops"][name]))
    return f"{', '.join(row['lost']) or 'nothing'} ({capability} {0.0 - row['drops'][capability]:+.2f})"


def _decisive(deciding: Sequence[str]) -> str:
    """What blocked, else what asked for a person."""
    failed = [cause for cause in deciding if "inconclusive" not in cause and "missing" not in cause]
    return next(iter([*failed, *deciding]), "all pass")


def _span(values: Sequence[float], unit: str) -> str:
    known = [v for v in values if v == v]
    if not known:
        return "not comparable"
    low, high = f"{min(known):.2g}", f"{max(known):.2g}"
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _counted(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(f"{listed.count(w)} × {w}" if listed.count(w) > 1 else w for w in dict.fromkeys(listed))


def _bounds(rows: Sequence[Row]) -> Iterator[str]:
    every = [(row, bound) for row in rows for bound in row["bounds"]]
    models = len({(row["kind"], row["seed"]) for row, _ in every})
    broken = [f"{row['kind']} {row['seed']}: {bound}" for row, bound in every if not bound["held"]]
    yield f"Lower bounds compared with measured scores: {len(every)} on {models} candidates; {len(broken)} above the score."
    yield from broken


def _cost(rows: Sequence[Row]) -> Iterator[str]:
    total = sum(row["made_cpu_s"] + row["judged_cpu_s"] + row["asked_cpu_s"] for row in rows)
    yield f"{len(rows)} candidates in {total / 60:.1f} minutes of one core: " + ", ".join(
        f"{what} {sum(row[key] for row in rows) / 60:.1f}"
        for what, key in (("making", "made_cpu_s"), ("judging", "judged_cpu_s"), ("asking what is true", "asked_cpu_s"))
    )
    for verdict in VERDICTS:
        chosen = [row for row in rows if row["verdict"] == verdict]
        if chosen:
            seconds = sum(row["judged_cpu_s"] for row in chosen) / len(chosen)
            forwards = sum(row["forwards"] for row in chosen) / len(chosen)
            yield f"- {verdict}: {seconds:.1f} s and {forwards:.0f} forward passes each, on average"


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
