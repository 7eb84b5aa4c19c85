"""The report and the dashboard in a real browser: nothing is refused, nothing is cut off, everybody can use them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_stand import Stand, a_stand, judged, served
from builders import a_prompt, a_verdict, an_evidence, some_prompts
from chromium import needs_chromium
from playwright.sync_api import expect

from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import LayerDisplacement
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.prompts import Option
from gate.domain.verdict import Outcome
from gate.pages.html_report import html

pytestmark = needs_chromium

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\u202e" + "x" * 3000


@pytest.fixture(scope="module")
def report() -> str:
    layers = tuple(
        LayerDisplacement(tensor=f"model.layers.{n}.mlp.{p}_proj.weight", norm=0.1 * n, base_norm=10, parameters=4)
        for n in range(24)
        for p in ("up", "down")
    )
    long = a_prompt(candidate=HOSTILE[:600], options=(Option(text="yes " * 40, base=-1.2, candidate=None),))
    return html(a_verdict(), an_evidence(layers=layers), "my-llm version 3", some_prompts(a_prompt(), long))


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = a_stand(tmp_path_factory.mktemp("browser"))
    judged(made, made.register(name="chat", version="1"), outcome=Outcome.BLOCKED)
    judged(made, made.register(name=HOSTILE, version="1", created_ms=2), outcome=Outcome.APPROVED, reason=HOSTILE)
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def url(stand: Stand) -> Iterator[str]:
    with served(stand) as address:
        yield address


def asked(stand: Stand, name: str) -> str:
    policy = stand.door.policies.policies[0]
    request = EvaluationRequest.of(stand.register(name=name, created_ms=len(name)), policy.name, policy.digest)
    stand.ledger.request_evaluation(request, stand.clock())
    return request.key


def comparing(done: float, used: int, lower: float, upper: float) -> dict[str, object]:
    """What a worker tells while it compares a candidate with its base."""
    sure = {"capability": "<b>safety", "value": -0.15, "lower": lower, "upper": upper, "margin": 0.1}
    return {"stage": "comparing with the base", "fraction": done, "narrowing": [sure | {"used": used, "of": 128}]}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_is_whole_at_any_width_in_both_themes_and_asks_nobody(
    view, report: str, tmp_path: Path, theme: str, width: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(report, encoding="utf-8")
    seen = view(color_scheme=theme, viewport={"width": width, "height": 800})
    page = seen.go(file.as_uri())
    page.locator("details.prompts summary").click()
    expect(page.locator(".said").first).to_be_visible()
    assert page.title() != "taken"
    assert seen.overflow() <= 0
    assert seen.asked == [file.as_uri()]
    assert seen.complaints == []
    # The policy lets its own style through: the page is not bare.
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 20, 24)"}[theme]


def test_an_evaluation_is_followed_live_to_its_verdict(view, stand: Stand, url: str) -> None:
    key = asked(stand, "followed")
    claim = stand.ledger.claim(inspect_key(key), "w", 600, stand.clock())
    stand.ledger.renew(claim, 600, stand.clock(), {"stage": "hashing files", "fraction": 0.1})
    seen = view()
    page = seen.go(f"{url}/evaluations/{key}")
    expect(page.locator("[data-live=told]")).to_have_text("hashing files")

    assert page.locator(".narrowing").is_hidden()
    stand.ledger.renew(claim, 600, stand.clock(), comparing(0.6, 16, -0.9, 0.6))
    expect(page.locator("[data-live=told]")).to_have_text("comparing with the base")
    expect(page.locator("[data-live=percent]")).to_have_text("60 %")
    row = page.locator("[data-narrowing] li")
    expect(row).to_have_attribute("data-capability", "<b>safety")
    expect(row.locator("[data-part=told]")).to_have_text("−0.15 (−0.90 to +0.60) after 16 of 128 items")
    wide = float(row.locator("[data-part=interval]").get_attribute("width"))

    stand.ledger.renew(claim, 600, stand.clock(), comparing(0.7, 64, -0.3, 0.0))
    expect(row.locator("[data-part=told]")).to_have_text("−0.15 (−0.30 to 0.00) after 64 of 128 items")
    assert float(row.locator("[data-part=interval]").get_attribute("width")) < wide / 4
    assert row.count() == 1
    assert page.locator("[data-narrowing] b").count() == 0

    stand.ledger.finish(claim, stand.clock())
    held = stand.ledger.claim(judge_key(key), "w", 600, stand.clock())
    stand.ledger.save_verdict(held, key, a_verdict(reason="Safety fell."), {}, stand.clock())
    stand.ledger.finish(held, stand.clock())
    expect(page.locator(".hero.blocked .reason")).to_have_text("Safety fell.")
    assert seen.complaints == []


def test_without_script_the_pages_work_and_renew_themselves(view, stand: Stand, url: str) -> None:
    key = asked(stand, "unscripted")
    seen = view(java_script_enabled=False)
    page = seen.go(f"{url}/evaluations/{key}")
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1
    page.goto(f"{url}/?outcome=blocked")
    page.locator(".list a").first.click()
    page.get_by_role("link", name="Read the report").click()
    expect(page.locator("h1")).to_contain_text("Blocked")


def test_from_the_fleet_to_the_reason_by_keyboard_alone(view, url: str) -> None:
    page = view().go(url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "text":
            break
    page.keyboard.type("chat")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=chat**")
    page.locator(".list a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".hero.blocked .reason")).to_have_text("Safety fell.")
