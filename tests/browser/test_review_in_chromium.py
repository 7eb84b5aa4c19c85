"""From MLflow's refusal to the alias, as a reviewer walks it in a real browser: read why, decide, promote."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_stand import served
from axe_playwright_python.sync_playwright import Axe
from chromium import PATIENCE_MS, chromium, needs_chromium
from review_office import Office

pytestmark = needs_chromium

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.stand.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_reviewer_reads_why_approves_and_the_alias_can_be_set(office: Office, tmp_path: Path, scheme: str) -> None:
    version, key = office.doubtful("help desk", submitter="sub")
    complaints: list[str] = []
    with served(office) as url, chromium() as browser:
        # As narrow as a telephone: what fits there fits anywhere.
        context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 844})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))

        def fair() -> bool:
            fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            return bool(page.evaluate(fits)) and Axe().run(page).violations_count == 0

        assert "needs review by policy default: Math" in (office.promote(version) or "")
        page.goto(f"{url}/reviews")
        page.get_by_label("Token").fill(office.tokens["ana"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{url}/reviews")
        assert fair()
        page.get_by_role("link", name="help desk").click()
        page.wait_for_url(f"{url}/evaluations/{key}")
        assert "Math" in page.locator(".hero .reason").inner_text()
        assert fair()
        page.get_by_role("link", name="Read the report").click()
        page.wait_for_url(f"{url}/evaluations/{key}/report")
        assert "help desk version 1" in page.content()
        page.go_back()

        page.get_by_label("Why").focus()
        page.keyboard.type(f"read twenty answers {HOSTILE}")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_text("ana decided to approve it").wait_for()
        assert fair()
        assert office.promote(version) is not None

        assert office.work(key) == "approved"
        page.reload()
        page.get_by_text("Approved by ana").wait_for()
        assert HOSTILE in page.locator("section", has=page.get_by_role("heading", name="Review")).inner_text()
        assert fair()
        assert office.promote(version) is None
        assert office.stand.leads(version.name) == {"approved": "1", "champion": "1"}
        page.goto(f"{url}/reviews")
        page.get_by_text("Nothing waits for a person.").wait_for()
    assert complaints == []
