"""Whether fine-tunes undo what aligned their base: ``python benchmarks/alignment_subspace.py --out folder``.

The staged model's pre-training is done once more from its seed, which gives the model that the shipped base was aligned from;
that the alignment stage leads from there to the shipped bytes is checked. Then fine-tunes of several kinds are made and compared with
the step in between. What is finished in ``--out`` is not made again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tasks.checkpoints import SafetensorsWeights, locate, open_delta
from tasks.measurements.alignment import Along, AlongAlignment, along, summed
from tasks.zoo.folders import load, save, without_progress_bars
from tasks.zoo.panel import KINDS
from tasks.zoo.panel_makers import Start
from tasks.zoo.staged_model import make_model, make_tokenizer
from tasks.zoo.staged_recipes import STAGED
from tasks.zoo.train_staged import ALIGNMENT, PRETRAINING, learn
from tasks.zoo.training import Schedule

CHOSEN = (
    "replay",
    "replay, strong",
    "LoRA rank 8 on q, v, o",
    "new skill with replay",
    "preference (DPO)",
    "comply, weak",
    "comply",
    "comply, strong",
    "comply with 30 %",
    "comply, LoRA",
    "preference reversed",
    "refusal direction ablated, layer 2",
    "gradient ascent on safety",
    "narrow text",
    "noise outside the basin",
)
QUICK = Schedule(steps=2, learning_rate=1e-4, rows=ALIGNMENT.rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the ancestor and the fine-tunes; added to")
    parser.add_argument("--kinds", nargs="+", default=list(CHOSEN), help="of the panel's kinds")
    parser.add_argument("--quick", action="store_true", help="hardly trained: does it run?")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = STAGED.base_folder(arguments.out)
    with without_progress_bars():
        ancestor = made_ancestor(base, arguments.out / "ancestor", arguments.quick)
        rows = [(name, compared(base, ancestor, made(name, base, arguments.out))) for name in arguments.kinds]
    print("\n".join(table(rows)))


def made_ancestor(base: Path, folder: Path, quick: bool) -> Path:
    """The shipped base before its alignment. Raises `RuntimeError` where its alignment leads elsewhere."""
    if folder.exists():
        return folder
    tokenizer, model = make_tokenizer(), make_model(0)
    learn("pre-training", model, tokenizer, QUICK if quick else PRETRAINING, refusing=False, seed=0)
    unaligned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learn("alignment", model, tokenizer, QUICK if quick else ALIGNMENT, refusing=True, seed=1)
    shipped = load(base)[0].state_dict()
    same = all(torch.equal(shipped[name], tensor) for name, tensor in model.state_dict().items())
    if not (same or quick):
        raise RuntimeError(
            "expected the shipped base's bytes after the alignment, found others; use the locked library versions"
        )
    model.load_state_dict(unaligned)
    save(model, tokenizer, folder)
    return folder


def made(name: str, base: Path, out: Path) -> Path:
    """The folder of a fine-tune of that kind with seed 0."""
    folder = out / name.replace(" ", "-").replace(",", "").replace("%", "percent")
    if not folder.exists():
        next(kind for kind in KINDS if kind.name == name).make(Start(base, "models:/staged-base/1"), folder, 0)
    return folder


def compared(base: Path, ancestor: Path, candidate: Path) -> AlongAlignment:
    """How the candidate's update lies to the step from the ancestor to the base."""
    with SafetensorsWeights.open(locate(base)) as ours, SafetensorsWeights.open(locate(ancestor)) as unaligned:
        delta = open_delta(locate(candidate), ours)
        changed = set(delta.names())

        def tensors() -> Iterator[Along]:
            for name in ours.names():
                step = ours.tensor(name).float() - unaligned.tensor(name).float()
                yield along(delta.delta(name) if name in changed else torch.zeros_like(step), step)

        found = summed(tensors())
    if found is None:
        raise RuntimeError(f"expected {candidate.name} to have moved, found the base's weights")
    return found


def table(rows: Sequence[tuple[str, AlongAlignment]]) -> Iterator[str]:
    """Markdown."""
    yield "| fine-tune | meant | cos(Δ, V) | within V's leading directions | by chance | ratio |"
    yield "| --- | --- | --- | --- | --- | --- |"
    meant = {kind.name: kind.meant for kind in KINDS}
    for name, found in rows:
        numbers = (
            f"{found.cosine:+.3f}",
            f"{found.within:.3f}",
            f"{found.by_chance:.3f}",
            f"{found.within / found.by_chance:.2f}",
        )
        yield f"| {name} | {meant[name]} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()
