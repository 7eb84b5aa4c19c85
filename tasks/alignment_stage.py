"""The stage that compares a candidate's update with the step by which its base was aligned, where that step is known."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from gate.domain.errors import GateError, NotMeasurable, Unavailable
from gate.domain.evidence import LayerAlignment
from gate.domain.vocabulary import EXTRAS, Extra
from tasks.bench import check_files, exactly
from tasks.checkpoints import SafetensorsWeights, locate
from tasks.estimates import measurement
from tasks.measurements.alignment import Along, AlongAlignment, along, summed
from tasks.measuring import Measuring
from tasks.weights import block_of

NO_ANCESTOR = "not measurable: the model that the base was aligned from is not known; onboard the base with --ancestor"
NO_STEP = "not measurable: nothing moved, or the base has its ancestor's weights"


def measure_alignment(m: Measuring) -> None:
    """Whether the update undoes the base's alignment, and how much of it lies where alignment moved the base."""
    m.tell("comparing with the step that aligned the base", 1.0)
    if m.bench.ancestor is None or m.bench.base.ancestor is None:
        return _leave_out(m, NO_ANCESTOR)
    try:
        folder = m.bench.ancestor()
        check_files(f"ancestor of {m.bench.base.name}", m.bench.base.ancestor.checkpoint, folder)
        tensors = dict(_tensors(m, folder))
    except Unavailable:
        # A registry that is away comes back: the job is tried again.
        raise
    except GateError as error:
        return _leave_out(m, f"not measurable: {error}")
    found = summed(tensors.values())
    if found is None:
        return _leave_out(m, NO_STEP)
    alignment = (_of(None, found), *_layers(tensors))
    m.evidence = m.evidence.model_copy(update={"alignment": alignment})
    numbers = (found.cosine, found.within, found.within / found.by_chance)
    for name, value in zip(EXTRAS[Extra.ALIGNMENT], numbers, strict=True):
        m.add(measurement(name, None, exactly(value, len(m.delta.names()))))
    return None


def _layers(tensors: Mapping[str, Along]) -> Iterator[LayerAlignment]:
    """Each layer's, in the model's order; none of a layer that has no number."""
    blocks: dict[str, list[Along]] = {}
    for name, sums in tensors.items():
        blocks.setdefault(block_of(name), []).append(sums)
    for block in sorted(blocks, key=lambda block: (not block.isdigit(), int(block) if block.isdigit() else 0)):
        found = summed(blocks[block])
        if found is not None:
            yield _of(block, found)


def _of(layer: str | None, found: AlongAlignment) -> LayerAlignment:
    return LayerAlignment(layer=layer, **asdict(found))


def _tensors(m: Measuring, folder: Path) -> Iterator[tuple[str, Along]]:
    """Each weight tensor's sums; of one that did not move, only by how much alignment had moved it."""
    changed = set(m.delta.names())
    with SafetensorsWeights.open(locate(folder)) as ancestor:
        for name in m.bench.weights.names():
            if m.bench.weights.entry(name).is_weight:
                ours, theirs = m.bench.weights.entry(name).shape, ancestor.entry(name).shape
                if ours != theirs:
                    raise NotMeasurable(
                        f"{name}: expected the base's shape {list(ours)} in its ancestor, found {list(theirs)}"
                    )
                step = m.bench.weights.tensor(name).float() - ancestor.tensor(name).float()
                update = m.delta.delta(name) if name in changed else None
                still = Along(0.0, float(step.double().square().sum()), 0.0)
                yield name, still if update is None else along(update, step)


def _leave_out(m: Measuring, why: str) -> None:
    for name in EXTRAS[Extra.ALIGNMENT]:
        m.leave_out(name, None, why)
