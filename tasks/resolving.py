"""What a suite can tell under a plan, before anything is measured: the smallest fall that so many items can rule out.

The comparison with the base passes once its interval lies above the margin. It is narrowest where no item changes at all, so a
margin below what it reaches then is one that no fine-tune can ever pass.
"""

from dataclasses import dataclass

from gate.domain.evidence import Plan
from tasks.measurements.confidence import PairedSequence
from tasks.suites import Suite

MOST_ITEMS = 20_000
"""As many items as anybody would write; a margin that takes more is said to take these."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """One capability: its items, of which ``compared`` are used before the verdict, and the smallest fall they rule out.

    ``smallest`` is ``None`` for items that have degrees: what they rule out follows from how much they vary. ``wanted`` is how
    many items the margin takes, where these are too few.
    """

    capability: str
    scorer: str
    items: int
    compared: int
    margin: float
    smallest: float | None
    wanted: int | None = None

    @property
    def enough(self) -> bool:
        """Whether an unharmed fine-tune can pass."""
        return self.wanted is None


def resolutions(suite: Suite, plan: Plan) -> tuple[Resolution, ...]:
    """What each capability of the suite can tell, all of them together with the plan's error probability."""
    alphas, found = suite.alphas(plan.alpha), []
    for benchmark in suite.benchmarks:
        alpha = alphas[benchmark.name]
        count = len(benchmark.items)
        compared = count if plan.retention_items is None else min(count, _whole(plan.retention_items, plan.batch_items))
        graded = benchmark.scorer in ("next_token", "lm_eval")
        smallest = None if graded else rules_out(compared, alpha)
        short = smallest is not None and smallest > benchmark.margin
        wanted = items_for(benchmark.margin, alpha) if short else None
        found.append(Resolution(benchmark.name, benchmark.scorer, count, compared, benchmark.margin, smallest, wanted))
    return tuple(found)


def rules_out(items: int, alpha: float) -> float:
    """The smallest fall that so many right-or-wrong items rule out where none of them changes.

    >>> rules_out(64, 0.01), rules_out(400, 0.01)
    (0.092, 0.016)
    """
    paired = PairedSequence(alpha)
    paired.feed([0.0] * items)
    lower = paired.interval().lower
    return 1.0 if lower is None else -lower


def items_for(margin: float, alpha: float) -> int:
    """How many items it takes to rule out a fall by the margin where none of them changes.

    >>> items_for(0.1, 0.01)
    59
    """
    paired = PairedSequence(alpha)
    for count in range(1, MOST_ITEMS):
        paired.feed([0.0])
        lower = paired.interval().lower
        if lower is not None and -lower <= margin:
            return count
    return MOST_ITEMS


def _whole(items: int, batch: int) -> int:
    """Rounded up to whole batches, as the comparison takes them."""
    return -(-items // batch) * batch
