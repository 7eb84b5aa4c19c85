"""Whether the candidate still has what the base had, item by item, with as few items as that takes.

The decision measurement of the gate: everything else explains it. Candidate and base are compared on the same
items in a random order that the seed fixes, and the comparison stops as soon as the margin is decided; its interval
holds at whatever item it stopped.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    known: Sequence[float] = (),
    most: int | None = None,
) -> Retention:
    """Compares the weights that ``score`` sees with the base, whose outcomes are those of all items in item order.

    ``alpha`` is for each interval. ``progress`` hears after each batch how many items were used, and the interval by then.
    ``known`` are the outcomes of a comparison that stopped earlier, which goes on as if it never had: the intervals hold at
    any item it stops at, and so does one that goes on because of what it said. ``most`` are the items compared beyond the known
    ones, rounded up to a whole batch so that where it stopped leaves no trace; all of them where it is ``None``.
    """
    base = np.asarray(base_outcomes, dtype=np.float64)
    order = item_order(base.size, seed, capability)
    own, paired, outcomes = MeanSequence(alpha), PairedSequence(alpha, is_graded(base)), [float(x) for x in known]
    own.feed(outcomes)
    paired.feed(np.asarray(outcomes) - base[list(order[: len(outcomes)])])
    for items in _batches(order, len(outcomes), batch, most):
        if stop_when_decided and paired.decided(margin) is not None:
            break
        found = score(items)
        own.feed(found)
        paired.feed(found - base[list(items)])
        outcomes += found.tolist()
        if progress is not None:
            progress(len(outcomes), paired.interval())
    return Retention(own.interval(), paired.interval(), paired.decided(margin), order[: len(outcomes)], tuple(outcomes))


def _batches(order: Sequence[int], known: int, batch: int, most: int | None) -> Iterator[Sequence[int]]:
    """What is to be compared beyond the known items, in the batches of a comparison that was never interrupted."""
    end = len(order) if most is None else known + most
    while known < min(end, len(order)):
        upto = (known // batch + 1) * batch
        yield order[known:upto]
        known = upto


def random_controls(
    place: Callable[[int], object],
    score: Mapping[str, ScoreItems],
    items: Mapping[str, Sequence[int]],
    base_outcomes: Mapping[str, Sequence[float] | Scores],
    *,
    draws: int,
    alpha: Mapping[str, float],
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
        capability: curve_point(1.0, found, on_items(base_outcomes[capability], items[capability]), alpha[capability])
        for capability, found in outcomes.items()
    }
