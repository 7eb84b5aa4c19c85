"""What a report shows of how the update lies, layer by layer, to the step that aligned its base."""

from dataclasses import dataclass

from markupsafe import Markup

from gate.domain.evidence import Evidence, LayerAlignment
from gate.pages.charts.bullets import share_bar
from gate.pages.numbers import compact, percent, signed

MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its share in the alignment's directions, that of random updates, and its cosine with the step."""

    name: str
    share: str
    by_chance: str
    ratio: str
    cosine: str
    bar: Markup


def aligned(evidence: Evidence) -> list[Layer]:
    """The whole checkpoint, then the layers furthest from chance; none where it was not measured."""
    whole = [each for each in evidence.alignment if each.layer is None]
    layers = [each for each in evidence.alignment if each.layer is not None]
    layers.sort(key=_from_chance, reverse=True)
    return [_layer(each) for each in (*whole, *layers[:MOST_LAYERS])]


def _from_chance(each: LayerAlignment) -> float:
    """How far from chance it lies, in standard deviations."""
    return abs(each.within - each.by_chance) / each.within_sd if each.within_sd else 0.0


def _layer(each: LayerAlignment) -> Layer:
    name = (
        "whole checkpoint"
        if each.layer is None
        else "outside the layers"
        if each.layer == "rest"
        else f"layer {each.layer}"
    )
    share = percent(each.within)
    return Layer(
        name=name,
        share=share,
        by_chance=f"{percent(each.by_chance)} ± {percent(each.within_sd)}",
        ratio=compact(each.ratio),
        cosine=f"{signed(each.cosine, 4)} ± {compact(each.cosine_sd)}",
        bar=share_bar(each.within, f"{name}: {share} of its movement in the directions of the alignment"),
    )
