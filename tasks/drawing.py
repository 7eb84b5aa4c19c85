"""The draws of noise that a base's profile is made of: which are needed, and one of them scored.

Each is for itself, whoever scores it: noise is keyed by seed, scale and draw, and outcomes add up by union. The base itself
is the draw at scale 0; which draws are needed further follows from those that are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gate.domain.errors import NotMeasurable
from gate.domain.evidence import Plan
from tasks.bench import Bench, Tell
from tasks.measurements.basin import Draw, Drawn, NoiseGrid, noise_items
from tasks.measurements.benchmark import Scores
from tasks.measurements.memory import until_it_fits
from tasks.measurements.perturbation import perturb
from tasks.measurements.retention import item_order
from tasks.suites import Suite

ITSELF = (0.0, 0)
"""Scale and draw of the base itself, on all items."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Draws that other workers scored: outcomes, the seconds these took together, and what each was made with."""

    drawn: Drawn = field(default_factory=dict)
    seconds: float = 0.0
    provenances: tuple[Mapping[str, str], ...] = ()


def all_draws(plan: Plan) -> tuple[tuple[float, int], ...]:
    """Scale and draw of everything that a profile may need: the base itself, then by scale."""
    return ITSELF, *((sigma, draw) for sigma in sorted(plan.noise_scales) for draw in range(plan.noise_draws))


def next_draws(suite: Suite, plan: Plan, seed: int, drawn: Drawn) -> tuple[Draw, ...]:
    """The draws to score next, each of them for itself; none once the base's curves are complete."""
    if ITSELF not in drawn:
        return (Draw(*ITSELF, tuple(b.name for b in suite.benchmarks)),)
    return noise_grid(suite, plan, seed, drawn).needed(drawn)


def noise_grid(suite: Suite, plan: Plan, seed: int, drawn: Drawn) -> NoiseGrid:
    """What the curves of a base are made of, of which at least the draw of the base itself is there."""
    known = measurable(suite, drawn[ITSELF])
    items = {c: noise_items(o.size, plan.noise_items, item_order(o.size, seed, c)) for c, o in known.items()}
    return NoiseGrid(plan.noise_scales, plan.noise_draws, items, known, suite.alphas(plan.alpha))


def measurable(suite: Suite, outcomes: Mapping[str, Scores]) -> Mapping[str, Scores]:
    """The capabilities the base has: with a score within the margin of nothing, nothing could be lost."""
    return {b.name: outcomes[b.name] for b in suite.benchmarks if float(np.mean(outcomes[b.name])) > b.margin}


def score_draw(bench: Bench, plan: Plan, seed: int, draw: Draw, tell: Tell) -> Mapping[str, Scores]:
    """The outcomes of one draw; the bench's weights stay where they are then."""
    place = (draw.sigma, draw.draw)
    if place == ITSELF:
        bench.restore()
    else:
        perturb(bench.model, bench.weights, draw.sigma, seed, draw.draw)
    scorers = bench.scorers(plan.batch_items)
    found = {}
    for number, capability in enumerate(draw.capabilities):
        tell(stage_of(draw, capability), number / len(draw.capabilities))
        count = len(bench.suite.benchmark(capability).items)
        items: Sequence[int] = range(count)
        if place != ITSELF:
            items = noise_items(count, plan.noise_items, item_order(count, seed, capability))
        found[capability] = until_it_fits(partial(scorers[capability], items), bench.forwards, plan.batch_items)
        if not np.isfinite(found[capability]).all():
            raise NotMeasurable(f"{stage_of(draw, capability)}: expected finite scores, found others")
    return found


def stage_of(draw: Draw, capability: str) -> str:
    """What is being scored, for people."""
    if (draw.sigma, draw.draw) == ITSELF:
        return f"scoring the base: {capability}"
    return f"finding the basin's edge: {capability} under noise of {draw.sigma:g}, draw {draw.draw + 1}"


def all_scored(bench: Bench, plan: Plan, seed: int, elsewhere: Elsewhere, tell: Tell) -> Drawn:
    """All draws: those scored elsewhere, and every other that is needed, scored here one after another."""
    drawn = dict(elsewhere.drawn)
    most = len(all_draws(plan))
    while wanted := next_draws(bench.suite, plan, seed, drawn):
        for each in wanted:
            part = partial(_part, tell, len(drawn) / most, 1 / most)
            drawn[each.sigma, each.draw] = score_draw(bench, plan, seed, each, part)
    return drawn


def _part(tell: Tell, behind: float, share: float, stage: str, fraction: float, /, *_: object) -> None:
    tell(stage, behind + share * fraction)
