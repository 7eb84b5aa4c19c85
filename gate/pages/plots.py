"""Pictures of a verdict: the basin with the candidate in it, and what each capability kept. PNG bytes."""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

from gate.domain.evidence import Curve, Evidence, Name

# Okabe & Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def pictures(evidence: Evidence) -> Mapping[str, bytes]:
    """Every picture the evidence supports, by file name; empty when nothing was measured."""
    made: dict[str, bytes] = {}
    if any(curve.kind == "noise" for curve in evidence.curves):
        made["basin.png"] = basin_picture(evidence)
    if any(evidence.find(Name.RETENTION, c) for c in evidence.capabilities):
        made["retention.png"] = retention_picture(evidence)
    if any(curve.kind == "line" for curve in evidence.curves):
        made["direction.png"] = direction_picture(evidence)
    return made


def basin_picture(evidence: Evidence) -> bytes:
    """Score against random noise scale for the base, with bands, and the candidate at its own RMS move."""
    figure, axes = _canvas()
    rms = evidence.find(Name.DISPLACEMENT_RMS)
    for index, curve in enumerate(c for c in evidence.curves if c.kind == "noise"):
        _band(axes, curve, index)
        change = evidence.find(Name.RETENTION, curve.capability)
        if rms is not None and change is not None:
            # Where the base's curve starts, plus the paired change: the curve is on fewer items than the score.
            axes.plot(
                rms.value,
                min(max(curve.points[0].estimate.value + change.value, 0.0), 1.0),
                marker=MARKS[index % 7],
                color=COLOURS[index % 7],
                markersize=11,
                markeredgecolor="black",
                linestyle="none",
            )
    if rms is not None:
        axes.axvline(rms.value, color="black", linewidth=1, linestyle=":")
        axes.annotate(" candidate", (rms.value, 1.06), ha="left", fontsize=9)
    axes.set_xlabel("random noise scale (RMS per weight); large marks: the candidate at its own move")
    axes.set_ylabel("score")
    axes.set_title("The base's basin under random noise, and where the candidate stands", fontsize=11)
    return _png(figure)


def direction_picture(evidence: Evidence) -> bytes:
    """Score along the fine-tune's own direction: 0 the base, 1 the candidate, beyond it the extrapolation."""
    figure, axes = _canvas()
    for index, curve in enumerate(c for c in evidence.curves if c.kind == "line"):
        _band(axes, curve, index)
    axes.axvline(1.0, color="black", linewidth=1, linestyle=":")
    axes.annotate(" candidate", (1.0, 1.06), ha="left", fontsize=9)
    axes.set_xlabel("multiple of the fine-tune's own update")
    axes.set_ylabel("score")
    axes.set_title("Along the fine-tune's own direction", fontsize=11)
    return _png(figure)


def retention_picture(evidence: Evidence) -> bytes:
    """Change of each capability against the base with its interval, and the margin it must stay above."""
    figure, axes = _canvas(legend_room=False)
    shown = [c for c in evidence.capabilities if evidence.find(Name.RETENTION, c)]
    for row, capability in enumerate(reversed(shown)):
        estimate = evidence.find(Name.RETENTION, capability)
        if estimate is None:
            continue
        low = estimate.value if estimate.lower is None else estimate.lower
        high = estimate.value if estimate.upper is None else estimate.upper
        axes.plot([low, high], [row, row], color=COLOURS[0], linewidth=5, solid_capstyle="butt", alpha=0.5)
        axes.plot(estimate.value, row, marker="o", color=COLOURS[0], markersize=8)
        if capability in evidence.margins:
            axes.plot([-evidence.margins[capability]] * 2, [row - 0.35, row + 0.35], color=COLOURS[1], linewidth=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("change of score against the base (bar: interval; orange: the margin it may not cross)")
    axes.set_title("What the candidate kept", fontsize=11)
    return _png(figure)


def _canvas(*, legend_room: bool = True) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8.4, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend_room:
        axes.set_ylim(-0.05, 1.15)
    return figure, axes


def _band(axes: Any, curve: Curve, index: int) -> None:
    points = sorted(curve.points, key=lambda p: p.at)
    at = [p.at for p in points]
    low = [p.estimate.value if p.estimate.lower is None else p.estimate.lower for p in points]
    high = [p.estimate.value if p.estimate.upper is None else p.estimate.upper for p in points]
    axes.fill_between(at, low, high, color=COLOURS[index % 7], alpha=0.13, linewidth=0)
    axes.plot(
        at,
        [p.estimate.value for p in points],
        color=COLOURS[index % 7],
        marker=MARKS[index % 7],
        markersize=4,
        label=curve.capability,
    )


def _png(figure: Figure) -> bytes:
    axes = figure.axes[0]
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    buffer = io.BytesIO()
    # No creation date or software version inside: the same evidence gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
