"""A base's draws of noise, scored by whoever and in whatever order, come to the curves of one worker alone."""

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.measurements.basin import LOST_AT, Draw, NoiseGrid, noise_curves
from tasks.measurements.benchmark import Scores

CAPABILITIES = ("basic", "math", "safety")
ITEMS = 12


class Falling:
    """Capabilities that are lost at a scale each; outcomes follow from scale, draw and item alone."""

    def __init__(self, edges: Mapping[str, float], draws: int, scales: list[float]) -> None:
        self.edges, self.at = edges, (0.0, 0)
        self.scored: list[tuple[float, int, str]] = []
        base = {c: np.ones(ITEMS) for c in edges}
        self.grid = NoiseGrid(scales, draws, {c: range(ITEMS) for c in edges}, base, dict.fromkeys(edges, 0.05))

    def perturb(self, sigma: float, draw: int) -> None:
        self.at = (sigma, draw)

    def score(self, capability: str) -> Scores:
        sigma, draw = self.at
        self.scored.append((sigma, draw, capability))
        chance = np.random.default_rng([int(1e6 * sigma), draw, CAPABILITIES.index(capability)]).random(ITEMS)
        return (chance > (sigma / self.edges[capability]) ** 4).astype(float)

    def outcomes(self, draw: Draw) -> Mapping[str, Scores]:
        self.perturb(draw.sigma, draw.draw)
        return {c: self.score(c) for c in draw.capabilities}


@st.composite
def models(draw: st.DrawFn) -> Falling:
    names = draw(st.lists(st.sampled_from(CAPABILITIES), min_size=1, unique=True))
    edges = {name: draw(st.floats(0.01, 2.0)) for name in names}
    scales = draw(st.lists(st.integers(1, 200).map(lambda n: n / 100), min_size=1, max_size=6, unique=True))
    return Falling(edges, draw(st.integers(2, 4)), scales)


@given(models(), st.randoms(use_true_random=False))
def test_draws_scored_in_any_order_by_anybody_give_the_same_curves(model: Falling, order) -> None:
    alone = noise_curves(model.grid, model.perturb, {c: lambda _, c=c: model.score(c) for c in model.edges})
    one_by_one = sorted(model.scored)
    model.scored.clear()
    drawn: dict[tuple[float, int], Mapping[str, Scores]] = {}
    while wanted := list(model.grid.needed(drawn)):
        order.shuffle(wanted)
        # Some workers are slow: what is needed is asked for again before all of it is there.
        ended = wanted[: order.randint(1, len(wanted))]
        parts = [{(each.sigma, each.draw): model.outcomes(each)} for each in ended]
        order.shuffle(parts)
        for part in parts:
            drawn |= part
    assert sorted(model.scored) == one_by_one
    assert model.grid.curves(drawn) == alone


@given(models())
def test_only_the_smallest_scales_are_asked_for_before_anything_is_known(model: Falling) -> None:
    first = model.grid.needed({})
    asked = sorted(model.grid.scales)[:LOST_AT]
    assert [(each.sigma, each.draw) for each in first] == [(s, d) for s in asked for d in range(model.grid.draws)]
    assert {each.capabilities for each in first} == {tuple(model.edges)}


@given(models())
def test_a_draw_that_lacks_a_capability_is_asked_for_again(model: Falling) -> None:
    drawn = {(each.sigma, each.draw): model.outcomes(each) for each in model.grid.needed({})}
    place = min(drawn)
    lacking = drawn | {place: {c: o for c, o in drawn[place].items() if c != next(iter(model.edges))}}
    assert [(each.sigma, each.draw) for each in model.grid.needed(lacking)] == [place]
