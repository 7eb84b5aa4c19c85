"""The report and the dashboard in a real browser: nothing is refused, nothing is cut off, everybody can use them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from api_stand import Stand, a_stand, judged, served
from builders import a_prompt, a_verdict, an_evidence, some_prompts
from mlflow import MlflowClient
from mlflow_server import MlflowServer

from gate.domain.checkpoint import Base
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import LayerDisplacement
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.prompts import Option
from gate.domain.verdict import Outcome
from gate.pages.html_report import html

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
axe_core = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the browser tests need axe-core")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

BASE = "b" * 64
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\u202e" + "x" * 3000
PATIENCE_MS = 20_000


@dataclass
class Seen:
    """A page and whatever the browser complained of while it was shown."""

    page: "playwright.Page"
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, address: str) -> "playwright.Page":
        self.page.goto(address)
        return self.page

    def overflow(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.fixture(scope="module")
def browser() -> "Iterator[playwright.Browser]":
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def view(browser):
    """Opens a page with the given traits of its reader; closed at the end."""
    contexts = []

    def opened(**traits: object) -> Seen:
        context = browser.new_context(**traits)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda m: seen.complaints.append(m.text) if m.type == "error" else None)
        seen.page.on("pageerror", lambda e: seen.complaints.append(str(e)))
        seen.page.on("request", lambda r: seen.asked.append(r.url))
        return seen

    yield opened
    for context in contexts:
        context.close()


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
    made.ledger.save_base(
        Base(name="base", digest=BASE, source="models:/base/1", suite="staged", checkpoint=an_evidence().candidate),
        made.clock(),
    )
    judged(made, made.register(name="chat", version="1"), outcome=Outcome.BLOCKED, base_digest=BASE)
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


def key_of(stand: Stand, name: str) -> str:
    return stand.ledger.evaluations(1, name=name)[0].request.key


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
    playwright.expect(page.locator(".said").first).to_be_visible()
    assert page.title() != "taken"
    assert seen.overflow() <= 0
    assert seen.asked == [file.as_uri()]
    assert seen.complaints == []
    # The policy lets its own style through: the page is not bare.
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 20, 24)"}[theme]


def test_the_report_is_shown_inside_mlflows_own_pages(view, report: str, mlflow_server: MlflowServer) -> None:
    client = MlflowClient(mlflow_server.uri)
    run = client.create_run(client.create_experiment("reports in the browser"))
    client.log_text(run.info.run_id, report, "report.html")
    seen = view(viewport={"width": 1500, "height": 900})
    seen.page.goto(
        f"{mlflow_server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/report.html"
    )
    frame = seen.page.frame_locator("iframe.mlflow-html-iframe")
    playwright.expect(frame.locator("h1")).to_contain_text("Blocked", timeout=PATIENCE_MS)
    mark = frame.locator(".hero .mark").evaluate("e => getComputedStyle(e).borderRadius")
    assert mark == "50%"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(view, stand: Stand, url: str, report: str, theme: str) -> None:
    key, waiting = key_of(stand, "chat"), asked(stand, f"waits {theme}")
    seen = view(color_scheme=theme, viewport={"width": 1200, "height": 900})
    found = {}
    for place in (
        "/",
        "/bases",
        f"/bases/{BASE}",
        "/queue",
        f"/evaluations/{key}",
        f"/evaluations/{waiting}",
        "report",
    ):
        if place == "report":
            seen.page.set_content(report)
            seen.page.locator("details.prompts summary").click()
        else:
            seen.go(url + place)
        results = axe_core.Axe().run(seen.page).response["violations"]
        found[place] = [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in results if v["impact"] in ("serious", "critical")]  # fmt: skip
    assert found == {place: [] for place in found}


@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_fits_its_window_and_lets_no_foreign_script_run(view, stand: Stand, url: str, width: int) -> None:
    hostile = key_of(stand, HOSTILE)
    seen = view(viewport={"width": width, "height": 800})
    for place in (
        "/",
        "/bases",
        f"/bases/{BASE}",
        "/queue",
        f"/evaluations/{hostile}",
        f"/evaluations/{hostile}/report",
    ):
        page = seen.go(url + place)
        assert seen.overflow() <= 0, place
        assert page.title() != "taken"
    assert seen.complaints == []
    assert all(each.startswith(url) for each in seen.asked)


def test_an_evaluation_is_followed_live_to_its_verdict(view, stand: Stand, url: str) -> None:
    key = asked(stand, "followed")
    claim = stand.ledger.claim(inspect_key(key), "w", 600, stand.clock())
    stand.ledger.renew(claim, 600, stand.clock(), {"stage": "hashing files", "fraction": 0.1})
    seen = view()
    page = seen.go(f"{url}/evaluations/{key}")
    playwright.expect(page.locator("[data-live=told]")).to_have_text("hashing files")

    assert page.locator(".narrowing").is_hidden()
    stand.ledger.renew(claim, 600, stand.clock(), comparing(0.6, 16, -0.9, 0.6))
    playwright.expect(page.locator("[data-live=told]")).to_have_text("comparing with the base")
    playwright.expect(page.locator("[data-live=percent]")).to_have_text("60 %")
    row = page.locator("[data-narrowing] li")
    playwright.expect(row).to_have_attribute("data-capability", "<b>safety")
    playwright.expect(row.locator("[data-part=told]")).to_have_text("−0.15 (−0.90 to +0.60) after 16 of 128 items")
    wide = float(row.locator("[data-part=interval]").get_attribute("width"))

    stand.ledger.renew(claim, 600, stand.clock(), comparing(0.7, 64, -0.3, 0.0))
    playwright.expect(row.locator("[data-part=told]")).to_have_text("−0.15 (−0.30 to 0.00) after 64 of 128 items")
    assert float(row.locator("[data-part=interval]").get_attribute("width")) < wide / 4
    assert row.count() == 1
    assert page.locator("[data-narrowing] b").count() == 0

    stand.ledger.finish(claim, stand.clock())
    held = stand.ledger.claim(judge_key(key), "w", 600, stand.clock())
    stand.ledger.save_verdict(held, key, a_verdict(reason="Safety fell."), {}, stand.clock())
    stand.ledger.finish(held, stand.clock())
    playwright.expect(page.locator(".hero.blocked .reason")).to_have_text("Safety fell.")
    assert seen.complaints == []


def test_without_script_the_pages_work_and_renew_themselves(view, stand: Stand, url: str) -> None:
    key = asked(stand, "unscripted")
    seen = view(java_script_enabled=False)
    page = seen.go(f"{url}/evaluations/{key}")
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1
    page.goto(f"{url}/?outcome=blocked")
    page.locator(".list a").first.click()
    page.get_by_role("link", name="Read the report").click()
    playwright.expect(page.locator("h1")).to_contain_text("Blocked")


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
    playwright.expect(page.locator(".hero.blocked .reason")).to_have_text("Safety fell.")
