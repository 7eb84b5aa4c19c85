"""The pictures of docs/explanation/validation.md: ``python benchmarks/figures.py --panel panel.jsonl --out docs/images``.

``--panel`` is what ``panel.py`` wrote; the base's profile is taken from its cache beside it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from panel import default_policy, read_rows
from torch import Tensor

from gate.domain.evidence import BasinProfile
from tasks.measurements.benchmark import answer_loss
from tasks.measurements.perturbation import DeltaSource, Snapshot, along, random_like
from tasks.measurements.sensitivity import largest_increase
from tasks.suites import load_suite
from tasks.zoo import recipes
from tasks.zoo.folders import load, without_progress_bars

INK, FAINT, BENIGN, HARMFUL, SPECIAL = "#222222", "#9a9a9a", "#0072b2", "#d55e00", "#555555"
STYLE: Mapping[str, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.edgecolor": "#777777", "axes.labelcolor": INK, "figure.dpi": 100,
    "savefig.dpi": 160, "legend.frameon": False,
}  # fmt: skip
LENGTHS = tuple(float(x) for x in np.geomspace(0.02, 20, 13))
RANDOM_DRAWS, WORST_STEPS, LOSS_ITEMS, SEED = 5, 8, 24, 11


def plateaus(profile: BasinProfile) -> Figure:
    """Score against random noise for each capability, with its interval and the basin's edge."""
    known = [c for c in profile.capabilities if c.noise]
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    grid = figure.subplots(1, len(known), sharey=True)
    for axes, capability in zip(np.atleast_1d(grid), known, strict=True):
        at = [p.at for p in capability.noise]
        lower = [p.estimate.lower if p.estimate.lower is not None else p.estimate.value for p in capability.noise]
        upper = [p.estimate.upper if p.estimate.upper is not None else p.estimate.value for p in capability.noise]
        axes.fill_between(at, lower, upper, color=BENIGN, alpha=0.2, linewidth=0)
        axes.plot(
            at, [p.estimate.value for p in capability.noise], color=BENIGN, marker="o", markersize=3, linewidth=1.3
        )
        edge = capability.basin_sigma
        axes.set_title(f"{capability.capability}: edge {edge.value:.3f}" if edge else capability.capability)
        axes.set_xlim(0, max(p.at for c in known for p in c.noise) * 1.03)
        axes.set_ylim(0, 1.04)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if edge:
            axes.axvline(edge.value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    np.atleast_1d(grid)[0].set_ylabel("score")
    figure.supxlabel("random noise added to every weight (standard deviation σ)", fontsize=9)
    return figure


def displacement_and_safety(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """How far each candidate moved against the refusals it kept, on the whole held-out population."""
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.subplots()
    for harmful, colour, marker, name in ((False, BENIGN, "o", "benign"), (True, HARMFUL, "X", "harmful")):
        chosen = [
            (100 * row["measurements"]["displacement_relative"], 1 - row["drops"]["safety"])
            for row in rows
            if row["harmful"] is harmful and row["measurements"].get("displacement_relative")
        ]
        at, kept = np.array(chosen).reshape(-1, 2).T
        axes.scatter(at, kept, s=26, color=colour, marker=marker, alpha=0.75, linewidth=0, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("displacement, % of the base's norm")
    axes.set_ylabel("refusals kept (1 = as the base)")
    axes.set_ylim(-0.05, 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="center left", title="by what it does")
    return figure


@dataclass(frozen=True)
class Difference:
    """Candidate − base."""

    base: Snapshot
    candidate: Snapshot

    def names(self) -> Sequence[str]:
        return self.base.names()

    def delta(self, name: str) -> Tensor:
        return self.candidate.tensor(name) - self.base.tensor(name)

    @property
    def norm(self) -> float:
        """‖candidate − base‖."""
        return float(sum(self.delta(name).double().square().sum() for name in self.names())) ** 0.5


def directions(room: Path) -> Figure:
    """The loss of safety along two fine-tunes' lines, random directions and worst ones, at equal lengths."""
    base = recipes.base_folder("staged", room)
    model, tokenizer = load(base, torch.float32)
    start, safety = Snapshot.of(model), load_suite("staged").benchmark("safety")

    def loss() -> Tensor:
        return answer_loss(model, tokenizer, safety, range(LOSS_ITEMS))

    lines = {name: _difference(start, base, recipe, room) for name, recipe in _FINE_TUNES.items()}
    clean = _value(loss)

    def risen(delta: DeltaSource, t: float) -> float:
        along(model, start, delta, t)
        return _value(loss) - clean

    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.subplots()
    for name, delta in lines.items():
        colour = HARMFUL if "comply" in name else BENIGN
        axes.plot(LENGTHS, [risen(delta, length / delta.norm) for length in LENGTHS], color=colour, label=name)
        axes.plot([delta.norm], [risen(delta, 1.0)], "o", color=colour, markersize=6)
    any_line = next(iter(lines.values()))
    draws = [random_like(any_line, SEED, draw) for draw in range(RANDOM_DRAWS)]
    spread = np.array([[risen(draw, length / any_line.norm) for draw in draws] for length in LENGTHS])
    axes.fill_between(LENGTHS, spread.min(axis=1), spread.max(axis=1), color=FAINT, alpha=0.5, linewidth=0)
    axes.plot(LENGTHS, spread.mean(axis=1), color=FAINT, label=f"{RANDOM_DRAWS} random directions")
    worst = [largest_increase(model, start, loss, radius=r, steps=WORST_STEPS, seed=SEED) for r in LENGTHS]
    axes.plot(LENGTHS, worst, color=INK, linestyle=(0, (4, 2)), label="worst direction found")
    _finish(axes)
    return figure


_FINE_TUNES = {"benign: replay": "benign_replay", "harmful: comply": "adversarial"}


def _finish(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylim(-0.008, 3000)
    axes.set_xlabel("length of the step ‖δ‖ (the base's norm is 80)")
    axes.set_ylabel("rise of the loss of refusing, nats per token")
    axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    axes.legend(loc="upper left")


def _difference(start: Snapshot, base: Path, recipe: str, room: Path) -> Difference:
    recipes.make("staged", recipe, base, room / recipe, base_reference="models:/staged-base/1")
    return Difference(start, Snapshot.of(load(room / recipe, torch.float32)[0]))


def _value(loss: Callable[[], Tensor]) -> float:
    with torch.no_grad():
        return float(loss())


def cached_profile(panel: Path, quick: bool) -> BasinProfile:
    """The base's profile as the panel's run left it."""
    plan = default_policy("staged", quick).plan.digest
    found = (BasinProfile.model_validate_json(p.read_bytes()) for p in panel.with_suffix(".cache").glob("*.json"))
    return next(profile for profile in found if profile.plan_digest == plan)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="the panel was a quick one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(dict(STYLE)), without_progress_bars():
        plateaus(cached_profile(arguments.panel, arguments.quick)).savefig(arguments.out / "plateaus.png")
        displacement_and_safety(read_rows(arguments.panel)).savefig(arguments.out / "displacement-and-safety.png")
        if not arguments.quick:
            with TemporaryDirectory() as room:
                directions(Path(room)).savefig(arguments.out / "directions.png")


if __name__ == "__main__":
    main()
