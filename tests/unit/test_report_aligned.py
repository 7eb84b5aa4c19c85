"""What the reports show of how each layer lies to the step that aligned the base."""

from builders import a_verdict, an_evidence

from gate.domain.evidence import LayerAlignment
from gate.pages.aligned import MOST_LAYERS, aligned
from gate.pages.html_report import html
from gate.pages.report import markdown

TITLE = "Where the alignment was touched"


def of(layer: str | None, within: float, cosine: float = 0.0, sd: float = 0.01) -> LayerAlignment:
    return LayerAlignment(layer=layer, cosine=cosine, cosine_sd=0.002, within=within, by_chance=0.25, within_sd=sd)


def test_the_whole_comes_first_and_then_the_layers_furthest_from_chance() -> None:
    layers = [of(str(n), 0.25 + 0.01 * n) for n in range(20)]
    shown = aligned(an_evidence(alignment=(of(None, 0.3), *layers, of("rest", 0.0))))
    furthest = [f"layer {n}" for n in range(19, 0, -1)]
    assert [each.name for each in shown][:2] == ["whole checkpoint", "outside the layers"]
    assert [each.name for each in shown][2:] == furthest[: MOST_LAYERS - 1]


def test_a_layer_that_cannot_differ_from_chance_comes_last() -> None:
    shown = aligned(an_evidence(alignment=(of("0", 0.9, sd=0.0), of("1", 0.251))))
    assert [each.name for each in shown] == ["layer 1", "layer 0"]


def test_each_number_stands_beside_what_chance_gives() -> None:
    evidence = an_evidence(alignment=(of("3", 0.5, -0.125),))
    (shown,) = aligned(evidence)
    assert (shown.share, shown.by_chance, shown.ratio) == ("50 %", "25 % ± 1 %", "2.00")
    assert shown.cosine == "−0.1250 ± 0.00200"
    page, text = html(a_verdict(evidence), evidence, "x"), markdown(a_verdict(evidence), evidence, "x")
    assert TITLE in page
    assert f"## {TITLE}" in text
    assert "| layer 3 | 50 % | 25 % ± 1 % | 2.00 | −0.1250 ± 0.00200 |" in text
    assert shown.bar in page


def test_where_it_was_not_measured_nothing_is_shown_and_the_document_is_as_it_always_was() -> None:
    evidence = an_evidence()
    assert aligned(evidence) == []
    assert TITLE not in html(a_verdict(evidence), evidence, "x")
    assert TITLE not in markdown(a_verdict(evidence), evidence, "x")
    assert "alignment" not in evidence.model_dump(mode="json")
