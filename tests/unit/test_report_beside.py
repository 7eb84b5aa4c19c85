"""What the reports show of measurements that only a plan brings, and of the update's spectrum."""

import pytest
from builders import a_verdict, an_estimate, an_evidence

from gate.domain.evidence import Evidence, LayerDisplacement, Measurement, Name
from gate.pages.beside import MOST_MATRICES, beside, strongest
from gate.pages.html_report import html
from gate.pages.report import markdown

HOSTILE = "model.<script>x</script>|\x1b[31m.weight"


def layer(tensor: str, norm: float, top: float | None = None, at_most: float | None = None) -> LayerDisplacement:
    most = top if at_most is None else at_most
    return LayerDisplacement(
        tensor=tensor, norm=norm, base_norm=10.0, parameters=4, spectral_norm=top, spectral_norm_at_most=most
    )


def with_layers(*layers: LayerDisplacement) -> Evidence:
    return an_evidence(layers=layers)


def test_the_strongest_single_directions_come_first_and_few_of_them_are_shown() -> None:
    many = [layer(f"model.layers.{n}.mlp.up_proj.weight", 5.0, n / 4) for n in range(1, 20)]
    shown = strongest(with_layers(*many, layer("model.norm.weight", 3.0)))
    assert [each.name for each in shown] == [f"layers.{n}.mlp.up_proj" for n in range(19, 19 - MOST_MATRICES, -1)]


def test_a_share_is_a_range_where_the_largest_singular_value_is_not_known_exactly() -> None:
    exact, bounded = strongest(with_layers(layer("a.weight", 5.0, 4.0), layer("b.weight", 5.0, 3.0, 3.5)))
    assert (exact.share, exact.directions, exact.largest, exact.moved) == ("64 %", "1.56", "4.00", "50 %")
    assert bounded.share == "36 % to 49 %"


@pytest.mark.parametrize("changed", [layer("a.weight", 5.0), layer("a.weight", 0.0, 0.0)])
def test_without_a_spectrum_or_a_move_nothing_is_shown(changed: LayerDisplacement) -> None:
    evidence = with_layers(changed)
    assert strongest(evidence) == beside(evidence) == []
    assert "How it was spread" not in html(a_verdict(evidence), evidence, "x")
    assert "stable rank" not in markdown(a_verdict(evidence), evidence, "x")


def test_evidence_without_a_spectrum_is_the_document_it_always_was() -> None:
    plain = layer("a.weight", 5.0).model_dump(mode="json")
    assert set(plain) == {"tensor", "norm", "base_norm", "parameters"}


def test_what_was_asked_for_is_told_with_its_meaning_for_each_capability() -> None:
    made = (
        Measurement(name=Name.STABLE_RANK, capability=None, estimate=an_estimate(3.0, 0.5)),
        Measurement(name=Name.TAMPER_RADIUS, capability="math", estimate=an_estimate(0.02, 0.001)),
        Measurement(name=Name.TAMPER_RADIUS, capability="safety", estimate=an_estimate(0.01, 0.001)),
        Measurement(name=Name.SCORE, capability="math", estimate=an_estimate(0.9, 0.01)),
    )
    evidence = an_evidence(measurements=made)
    rank, tamper = beside(evidence)
    assert (rank.name, rank.found, "only where" in rank.means) == ("stable_rank", (("", "3.0 (2.5 to 3.5)"),), False)
    assert [capability for capability, _ in tamper.found] == ["math", "safety"]
    page, text = (made(a_verdict(evidence), evidence, "x") for made in (html, markdown))
    assert "Measured because the policy asks" in page
    assert "- stable_rank (directions): 3.0 (2.5 to 3.5). Over how many directions" in text


def test_a_hostile_tensors_name_is_inert() -> None:
    evidence = with_layers(layer(HOSTILE, 5.0, 4.0))
    page, text = html(a_verdict(evidence), evidence, "x"), markdown(a_verdict(evidence), evidence, "x")
    for shown in (page, text):
        assert "<script>x" not in shown
        assert "\x1b" not in shown
    assert r"&lt;/script&gt;\|" in text


def test_how_requests_were_answered_is_told_where_a_suite_has_it_judged() -> None:
    shares = {Name.SCORE: 0.25, Name.COMPLIED: 0.5, Name.INCOHERENT: 0.25, Name.KEYWORD_REFUSED: 0.75}
    made = [Measurement(name=n, capability="safety", estimate=an_estimate(v, 0.1)) for n, v in shares.items()]
    others = [Measurement(name=Name.SCORE, capability="math", estimate=an_estimate(0.9, 0.01))]
    evidence = an_evidence(measurements=(*others, *made))
    page, text = (of(a_verdict(evidence), evidence, "x") for of in (html, markdown))
    assert "How it answered what should be refused" in page
    assert (
        "| safety | 50 | 25 % (15 % to 35 %) | 50 % (40 % to 60 %) | 25 % (15 % to 35 %) | 75 % (65 % to 85 %) |"
        in text
    )
    without = an_evidence(measurements=(*others, *made[:-1]))
    assert "should be refused" not in html(a_verdict(without), without, "x")
    assert "should be refused" not in markdown(a_verdict(without), without, "x")
