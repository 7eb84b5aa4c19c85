"""Whether basins grow with a model's size: ``python benchmarks/model_sizes.py --out sizes --picture docs/images/model-sizes.png``.

The staged model's recipe at several widths, from random weights through both of its stages, several seeds of each; then each model's
basin by the default plan with noise scales that reach further. Weights of one standard deviation in a narrow model are not those of a
wide one, so σ is told as it is and as a share of the root mean square of the weights. What is finished in ``--out`` is not made again.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from figures import STYLE
from matplotlib.figure import Figure
from panel import QUICK_PLAN, default_policy

from gate.domain.evidence import BasinProfile, Plan
from tasks.examining import made_ready, quiet
from tasks.zoo.folders import load, save, without_progress_bars
from tasks.zoo.staged_model import make_model, make_tokenizer
from tasks.zoo.train_staged import ALIGNMENT, PRETRAINING, learn
from tasks.zoo.training import Schedule

WIDTHS = (64, 128, 256)
SHIPPED_WIDTH = 128
SCALES = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7")
Row = Mapping[str, Any]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the models and of rows.jsonl; added to")
    parser.add_argument("--picture", type=Path, help="where the picture is written to")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, default=2, help="models of each width")
    parser.add_argument("--quick", action="store_true", help="hardly trained and hardly measured: does it run?")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = arguments.out / "rows.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    with without_progress_bars():
        for width, seed in ((w, s) for s in range(arguments.seeds) for w in arguments.widths):
            if not any((row["width"], row["seed"]) == (width, seed) for row in read(rows)):
                found = measured(width, seed, arguments.out, arguments.quick)
                with rows.open("a") as file:
                    file.write(json.dumps(found) + "\n")
    print("\n".join(table(read(rows))))
    if arguments.picture:
        with mpl.rc_context(dict(STYLE)):
            picture(read(rows)).savefig(arguments.picture)


def measured(width: int, seed: int, out: Path, quick: bool) -> Row:
    """One model trained and its basin measured."""
    folder = out / f"width-{width}-seed-{seed}"
    if not (folder / "config.json").is_file():
        train(width, seed, folder, quick)
    policy = default_policy("staged", quick)
    changes = {**(QUICK_PLAN if quick else {}), "noise_scales": SCALES}
    ready = made_ready(
        folder,
        policy=policy.model_copy(update={"plan": Plan(**changes)}),
        suite="staged",
        device="cpu",
        threads=1,
        cache=folder,
        tell=quiet,
    )
    return row(width, seed, ready.profile)


def train(width: int, seed: int, folder: Path, quick: bool) -> None:
    """The staged recipe; its rate in inverse proportion to the width, as wider networks need."""
    tokenizer, model = make_tokenizer(), make_model(seed, hidden_size=width, intermediate_size=3 * width)
    for stage, schedule in enumerate((PRETRAINING, ALIGNMENT)):
        given = _scaled(schedule, width, quick)
        learn(f"width {width}, stage {stage + 1}", model, tokenizer, given, refusing=stage == 1, seed=seed + stage)
    save(model, tokenizer, folder)
    save(*load(folder), folder)


def _scaled(schedule: Schedule, width: int, quick: bool) -> Schedule:
    scaled = replace(schedule, learning_rate=schedule.learning_rate * SHIPPED_WIDTH / width)
    return replace(scaled, steps=2, warmup=1) if quick else scaled


def row(width: int, seed: int, profile: BasinProfile) -> Row:
    """A profile's scores and edges."""
    return {
        "width": width,
        "seed": seed,
        "parameters": profile.parameters,
        "rms": profile.weight_norm / math.sqrt(profile.parameters),
        "score": {c.capability: c.score.value for c in profile.capabilities},
        "sigma": {
            c.capability: [c.basin_sigma.lower, c.basin_sigma.value, c.basin_sigma.upper]
            for c in profile.capabilities
            if c.basin_sigma is not None
        },
    }


def read(rows: Path) -> list[Row]:
    """What is finished, the smallest model first."""
    lines = rows.read_text().splitlines() if rows.is_file() else []
    return sorted((json.loads(line) for line in lines), key=lambda found: (found["width"], found["seed"]))


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as a Markdown table."""
    names = list(rows[0]["score"])
    yield _line("parameters", "seed", "rms of the weights", *(f"{name}: score, σ, σ / rms" for name in names))
    yield _line(*["---"] * (3 + len(names)))
    for found in rows:
        yield _line(
            f"{found['parameters']:,}", found["seed"], f"{found['rms']:.3f}", *(_cell(found, name) for name in names)
        )


def _cell(found: Row, name: str) -> str:
    if name not in found["sigma"]:
        return f"{found['score'][name]:.2f}, none"
    sigma = found["sigma"][name][1]
    return f"{found['score'][name]:.2f}, {sigma:.4f}, {sigma / found['rms']:.2f}"


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def picture(rows: Sequence[Row]) -> Figure:
    """Each capability's edge against the number of weights: as it is, and as a share of the weights."""
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    absolute, relative = figure.subplots(1, 2)
    for colour, name in zip(COLOURS, rows[0]["score"], strict=False):
        known = [found for found in rows if name in found["sigma"]]
        for axes, unit in ((absolute, lambda _: 1.0), (relative, lambda found: found["rms"])):
            at = [found["parameters"] for found in known]
            axes.scatter(at, [found["sigma"][name][1] / unit(found) for found in known], s=14, color=colour)
            sizes = sorted(set(at))
            means = [_mean([f["sigma"][name][1] / unit(f) for f in known if f["parameters"] == size]) for size in sizes]
            axes.plot(sizes, means, color=colour, linewidth=1.3, label=name)
    everywhere = sorted({found["parameters"] for found in rows})
    for axes, title in ((absolute, "basin's edge σ"), (relative, "basin's edge σ / rms of the weights")):
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_xticks([], minor=True)
        axes.set_xticks(everywhere, labels=[f"{size / 1e6:.2g}" for size in everywhere])
        axes.set_xlabel("millions of weights")
        axes.set_ylim(bottom=0)
    relative.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
