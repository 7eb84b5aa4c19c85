import re
from html.parser import HTMLParser

import pytest
from builders import a_verdict, an_estimate, an_evidence

from gate.domain.evidence import Curve, CurvePoint, Estimate, LayerDisplacement, Measurement, Name, StageCost
from gate.domain.verdict import DefectFinding, Enforcement, Outcome, Result
from gate.pages.charts.basin import panels, state
from gate.pages.charts.bullets import bullet, span
from gate.pages.charts.heat import heat_map
from gate.pages.charts.svg import ticks
from gate.pages.html_report import failure, html
from gate.pages.rendering import style

VOID = {"meta", "br", "link", "input", "img", "col"}
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\" onload='x' " + "A" * 1_000_000


class Nesting(HTMLParser):
    """Every tag that opens is closed in order; remembers elements and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag


def parsed(page: str) -> Nesting:
    found = Nesting()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def full_evidence():
    evidence = an_evidence()
    line = tuple(CurvePoint(at=at, estimate=an_estimate(0.97 - 0.1 * at, 0.02)) for at in (1.0, 2.0, 5.0))
    layers = [
        LayerDisplacement(tensor=f"model.layers.{n}.self_attn.q_proj.weight", norm=0.1 * n, base_norm=10, parameters=4)
        for n in range(12)
    ]
    embedding = LayerDisplacement(tensor="model.embed_tokens.weight", norm=0.5, base_norm=10, parameters=4)
    return evidence.model_copy(
        update={
            "curves": (*evidence.curves, Curve(kind="line", capability="safety", points=line)),
            "layers": (*layers, embedding),
            "costs": (StageCost(stage="behaviour", seconds=2.5, forwards=12_345, peak_bytes=2**30),),
            "unmeasured": {"headroom/math": "not needed"},
        }
    )


@pytest.fixture(scope="module")
def page() -> str:
    return html(a_verdict(), full_evidence(), "my-llm version 3")


def test_the_report_is_well_formed_and_names_the_verdict_first(page: str) -> None:
    assert parsed(page)
    words = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split()
    assert words.index("Blocked") < words.index("Safety") < words.index("basin,")


def test_the_report_asks_nobody_for_anything(page: str) -> None:
    elements = parsed(page).seen
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & {tag for tag, _ in elements}
    assert not [a for _, given in elements for a in given if a.startswith("on") or a in ("style", "src", "srcset")]
    assert "url(" not in style()
    assert "@import" not in style()


def test_the_reports_policy_allows_its_own_style_sheet_and_nothing_else(page: str) -> None:
    policies = [a["content"] for tag, a in parsed(page).seen if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; base-uri 'none'; form-action 'none'", policies[0]
    )


def test_every_picture_says_in_words_what_it_shows(page: str) -> None:
    pictures = [a for tag, a in parsed(page).seen if tag == "svg" and "aria-hidden" not in a]
    assert len(pictures) >= 4
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 10 for a in pictures)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_page_with_what_it_means_for_promotion(outcome: Outcome) -> None:
    assert "promoted" in html(a_verdict(outcome=outcome), an_evidence(measurements=(), curves=()), "x")


def test_hostile_names_and_messages_are_inert_and_cut() -> None:
    evidence = full_evidence().model_copy(
        update={
            "capabilities": (HOSTILE, "math"),
            "margins": {HOSTILE: 0.1, "math": 0.1},
            "base_name": HOSTILE,
            "suite": HOSTILE,
            "unmeasured": {HOSTILE: HOSTILE},
            "provenance": {HOSTILE: HOSTILE},
            "measurements": (
                Measurement(name=Name.RETENTION, capability=HOSTILE, estimate=an_estimate(-0.01, 0.04)),
                Measurement(name=Name.FORWARD_KL, capability=HOSTILE, estimate=an_estimate(0.5, 0.1)),
            ),
            "layers": (LayerDisplacement(tensor=HOSTILE, norm=1, base_norm=2, parameters=1),),
        }
    )
    finding = a_verdict().findings[0].model_copy(update={"capability": HOSTILE, "sentence": HOSTILE, "rule": HOSTILE})
    verdict = a_verdict(reason=HOSTILE, errors=(HOSTILE,), findings=(finding,), policy=HOSTILE)

    page = html(verdict, evidence, HOSTILE)

    elements = parsed(page).seen
    assert "script" not in {tag for tag, _ in elements}
    assert not [a for _, given in elements for a in given if a.startswith("on")]
    assert not set(page) & {"\x1b", "\u202e"}
    assert len(page) < 200_000


def test_a_failure_without_a_verdict_is_inert_too() -> None:
    page = failure(HOSTILE, HOSTILE)
    assert "script" not in {tag for tag, _ in parsed(page).seen}
    assert len(page) < 40_000


def test_what_is_not_known_takes_no_room() -> None:
    page = html(a_verdict(findings=()), an_evidence(measurements=(), curves=(), capabilities=()), "x")
    for heading in ("The basin", "What it kept", "Where it moved", "Which way it went", "The files themselves"):
        assert heading not in page


def test_a_defect_is_told_with_what_it_leads_to() -> None:
    from gate.domain.evidence import Defect, DefectCode

    found = Defect(code=DefectCode.UNSAFE_FILE, message="expected safetensors, found a pickle")
    verdict = a_verdict(defects=(DefectFinding(defect=found, enforcement=Enforcement.BLOCK),))
    page = html(verdict, an_evidence(), "x")
    assert "unsafe file" in page
    assert "expected safetensors, found a pickle" in page


def test_the_command_to_do_it_again_quotes_what_it_was_given() -> None:
    page = html(a_verdict(), an_evidence(suite="x; rm -rf /"), "x")
    assert "--suite &#39;x; rm -rf /&#39;" in page


def test_a_lost_capability_is_drawn_before_a_kept_one() -> None:
    lost = Measurement(name=Name.RETENTION, capability="math", estimate=an_estimate(-0.9, 0.05))
    evidence = an_evidence()
    kept = [m for m in evidence.measurements if (m.name, m.capability) != (Name.RETENTION, "math")]
    changed = evidence.model_copy(update={"measurements": (*kept, lost)})
    assert [(p.capability, p.state) for p in panels(changed)] == [("math", "lost"), ("safety", "kept")]


def test_an_interval_across_the_margin_is_neither_kept_nor_lost() -> None:
    unsure = an_evidence(
        measurements=(Measurement(name=Name.RETENTION, capability="safety", estimate=an_estimate(-0.1, 0.05)),)
    )
    assert state(unsure, "safety") == "unsure"
    assert state(unsure, "math") == "unsure"


def test_a_candidate_that_did_not_move_still_has_its_basin_drawn() -> None:
    measurements = (Measurement(name=Name.DISPLACEMENT_RMS, estimate=Estimate.exact(0.0)),)
    assert len(panels(an_evidence(measurements=measurements))) == 2


def test_a_graph_puts_the_limit_on_the_side_that_is_allowed() -> None:
    finding = a_verdict().findings[0]
    drawn = bullet(finding, span([finding]))
    assert drawn is not None
    assert drawn.index("bad-ground") < drawn.index("good-ground")
    assert bullet(finding.model_copy(update={"estimate": None, "result": Result.MISSING}), span([finding])) is None


def test_the_heat_map_puts_layers_across_and_the_rest_beside() -> None:
    found = heat_map(full_evidence().layers)
    assert found is not None
    assert found.blocks == tuple(range(12))
    assert [part for part, _ in found.rows] == ["self_attn.q_proj"]
    assert [part for part, _ in found.others] == ["embed_tokens"]
    assert not found.numbers
    assert max(cell.shade for _, row in found.rows for cell in row if cell) == 6
    assert heat_map([]) is None


def test_ticks_are_few_and_round() -> None:
    assert ticks(-1.0, 0.16) == [-1.0, -0.75, -0.5, -0.25, 0.0]
    assert 2 <= len(ticks(-0.31, 0.16)) <= 5


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _themes() -> list[dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks[:2])
    return [light, light | dark]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *[(text, ground) for text in ("ink", "soft", "link") for ground in ("page", "card")],
        *[(outcome, "card") for outcome in ("approved", "blocked", "needs_review", "error", "open")],
        *[(outcome, f"{outcome}-bg") for outcome in ("approved", "blocked", "needs_review", "error", "open")],
        *[("ink", f"h{n}") for n in range(4)],
        *[("on-h4", f"h{n}") for n in (5, 6)],
        ("blocked", "lost"),
        ("soft", "faint"),
        ("ink", "faint"),
    ],
)
def test_text_can_be_read_on_its_ground_in_both_themes(theme: int, text: str, ground: str) -> None:
    colours = _themes()[theme]
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("mark", ["own", "noise", "approved", "blocked"])
def test_marks_stand_out_from_the_card_in_both_themes(theme: int, mark: str) -> None:
    colours = _themes()[theme]
    assert contrast(colours[mark], colours["card"]) >= 3
