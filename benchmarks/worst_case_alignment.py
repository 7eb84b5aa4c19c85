"""Whether fine-tunes move the worst-case way, by gradient and preconditioned: ``python benchmarks/worst_case_alignment.py --out folder``.

Fine-tunes of several kinds of the staged model against the base's gradients of its safety answers, as the static stage measures
them, and as many random updates of the size of the first as there are kinds. What is finished in ``--out`` is not made again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from alignment_subspace import CHOSEN, made

from gate.domain.checkpoint import Base
from gate.domain.evidence import Name, Plan
from gate.domain.vocabulary import Extra
from tasks.bench import Bench
from tasks.checkpoints import locate
from tasks.profiling import write_gradients
from tasks.static_stage import StaticResult, inspect_folder
from tasks.zoo.edits import add_noise
from tasks.zoo.folders import load, save, without_progress_bars
from tasks.zoo.panel import KINDS
from tasks.zoo.staged_recipes import STAGED

CAPABILITY = "safety"
COLUMNS = (
    Name.WORST_CASE_ALIGNMENT,
    Name.WORST_CASE_ALIGNMENT_Z,
    Name.PRECONDITIONED_ALIGNMENT,
    Name.PRECONDITIONED_ALIGNMENT_Z,
    Name.PREDICTED_LOSS_INCREASE,
)
RANDOM_SIGMA = 0.0005
"""About as far as a gentle fine-tune moves."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the fine-tunes; added to")
    parser.add_argument("--kinds", nargs="+", default=list(CHOSEN), help="of the panel's kinds")
    parser.add_argument("--quick", action="store_true", help="gradients of two items: does it run?")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = STAGED.base_folder(arguments.out)
    bench = on_bench(base)
    gradients = arguments.out / "gradients.safetensors"
    plan = Plan(also=(Extra.GRADIENTS,))
    write_gradients(bench, plan.model_copy(update={"gradient_items": 2}) if arguments.quick else plan, 0, gradients)
    attested = (locate(base), bench.base.checkpoint)
    with without_progress_bars():
        rows = [
            (name, inspect_folder(made(name, base, arguments.out), attested, gradients)) for name in arguments.kinds
        ]
        drawn = [
            inspect_folder(random_update(base, arguments.out, seed), attested, gradients)
            for seed in range(len(arguments.kinds))
        ]
    print("\n".join(table(rows, drawn)))


def on_bench(folder: Path) -> Bench:
    """The base with its shipped suite."""
    attested = inspect_folder(folder).checkpoint
    base = Base(name="staged", digest=attested.digest, source=str(folder), suite=STAGED.suite, checkpoint=attested)
    return Bench.load(base, folder, "cpu")


def random_update(base: Path, out: Path, seed: int) -> Path:
    """The base with a little noise on every weight."""
    folder = out / f"random-{seed}"
    if not folder.exists():
        model, tokenizer = load(base, torch.float32)
        add_noise(model, RANDOM_SIGMA, seed)
        save(model, tokenizer, folder)
    return folder


def number(found: StaticResult, name: Name) -> float:
    """One of the static stage's numbers of the capability."""
    return next(m.estimate.value for m in found.measurements if (m.name, m.capability) == (name, CAPABILITY))


def table(rows: Sequence[tuple[str, StaticResult]], drawn: Sequence[StaticResult]) -> Iterator[str]:
    """Markdown: each fine-tune, and the furthest of the random updates."""
    yield "| fine-tune | meant | cos(Δ, g) | z | cos(Δ, h) | z | ⟨g, Δ⟩, nats per token |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    meant = {kind.name: kind.meant for kind in KINDS}
    for name, found in rows:
        yield f"| {name} | {meant[name]} | {cells([number(found, column) for column in COLUMNS])} |"
    furthest = [max((number(found, column) for found in drawn), key=abs) for column in COLUMNS]
    yield f"| random, furthest of {len(drawn)} | | {cells(furthest)} |"


def cells(found: Sequence[float]) -> str:
    """A row's numbers."""
    plain, z, turned, turned_z, loss = found
    return f"{plain:+.3f} | {z:+.0f} | {turned:+.3f} | {turned_z:+.0f} | {loss:+.3f}"


if __name__ == "__main__":
    main()
