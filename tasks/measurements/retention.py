"""Whether the candidate still has what the base had, item by item, with as few items as that takes.

The decision measurement of the gate: everything else explains it. Candidate and base are compared on the same
items in a random order that the seed fixes, and the comparison stops as soon as the margin is decided; its interval
holds at whatever item it stopped.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.measurements.basin import curve_point, on_items
from tasks.measurements.benchmark import ScoreItems, Scores
from tasks.measurements.confidence import Interval, MeanSequence, PairedSequence, is_graded
from tasks.measurements.crossing import CurvePoint


@dataclass(frozen=True, slots=True)
class Retention:
    """A capability compared: the candidate's score, its difference to the base, and on which items.

    ``decision`` is ``None`` where the items ran out first; ``outcomes`` belong to ``items``, in that order.
    """

    score: Interval
    difference: Interval
    decision: Literal["retained", "lost"] | None
    items: tuple[int, ...]
    outcomes: tuple[float, ...]


def item_order(count: int, seed: int, capability: str) -> tuple[int, ...]:
    """A random order of a capability's items that depends on the arguments alone.

    >>> sorted(item_order(4, 7, "math"))
    [0, 1, 2, 3]
    """
    key = hashlib.sha256(f"{seed}\0{capability}".encode()).digest()
    shuffled = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little"))).permutation(count)
    return tuple(int(i) for i in shuffled)


def measure_retention(
    score: ScoreItems,
    base_outcomes: Sequence[float] | Scores,
    *,
    capability: str,
    margin: float,
    alpha: float,
    seed: int,
    batch: int = 32,
    stop_when_decided: bool = True,
    progress: Callable[[int, Interval], object] | None = None,
) -> Retention:
    """Compares the weights that ``score`` sees with the base, whose outcomes are those of all items in item order.

    ``alpha`` is for each interval. ``progress`` hears after each batch how many items were used, and the interval by then.
    """
    base = np.asarray(base_outcomes, dtype=np.float64)
    order = item_order(base.size, seed, capability)
    own, paired, outcomes = MeanSequence(alpha), PairedSequence(alpha, is_graded(base)), list[float]()
    for start in range(0, len(order), batch):
        items = order[start : start + batch]
        found = score(items)
        own.feed(found)
        paired.feed(found - base[list(items)])
        outcomes += found.tolist()
        if progress is not None:
            progress(len(outcomes), paired.interval())
        if stop_when_decided and paired.decided(margin) is not None:
            break
    return Retention(own.interval(), paired.interval(), paired.decided(margin), order[: len(outcomes)], tuple(outcomes))


def random_controls(
    place: Callable[[int], object],
    score: Mapping[str, ScoreItems],
    items: Mapping[str, Sequence[int]],
    base_outcomes: Mapping[str, Sequence[float] | Scores],
    *,
    draws: int,
    alpha: float,
) -> dict[str, CurvePoint]:
    """Each capability's difference under random directions of the candidate's own norm, the draw being the unit.

    ``place(draw)`` sets the weights to the base plus the draw's direction (``random_like``). What the candidate loses
    and this does not is owed to where it moved, not to how far.
    """
    outcomes: dict[str, list[Scores]] = {capability: [] for capability in score}
    for draw in range(draws):
        place(draw)
        for capability, of in score.items():
            outcomes[capability].append(of(items[capability]))
    return {
        capability: curve_point(1.0, found, on_items(base_outcomes[capability], items[capability]), alpha)
        for capability, found in outcomes.items()
    }
