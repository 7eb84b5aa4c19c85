"""Signing in to the dashboard in a real browser, and out of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_stand import a_stand, served
from axe_playwright_python.sync_playwright import Axe
from chromium import PATIENCE_MS, chromium, needs_chromium
from deliveries import CAPTURE_SECRET
from playwright.sync_api import expect

from gate.adapters.token_file import TokenFile
from gate.api.access import Access
from gate.domain.access import made_token

pytestmark = needs_chromium

TOKEN, LINE = made_token("ana", "reader")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "tokens.yaml").write_text(LINE + "\n")
    stand = a_stand(tmp_path, access=Access(TokenFile(tmp_path / "tokens.yaml"), (CAPTURE_SECRET,)))
    with served(stand) as address:
        yield address
    stand.ledger.close()


def test_a_person_signs_in_once_reads_and_signs_out(url: str) -> None:
    complaints: list[str] = []
    with chromium() as browser:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)

        page.goto(f"{url}/queue?from=chat")
        assert page.url == f"{url}/sign-in?to=%2Fqueue%3Ffrom%3Dchat"
        assert Axe().run(page).violations_count == 0
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{url}/queue?from=chat")
        assert page.locator("a[aria-current=page]").inner_text() == "Queue"
        assert TOKEN not in page.url + page.content()
        assert page.evaluate("document.cookie") == ""
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        assert Axe().run(page).violations_count == 0

        page.get_by_role("link", name="Bases").click()
        page.wait_for_url(f"{url}/bases")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{url}/sign-in")
        assert context.cookies() == []
        page.goto(f"{url}/bases")
        assert page.url.startswith(f"{url}/sign-in")
        assert complaints == []

        page.get_by_label("Token").fill("bgt_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("That token is not known.")
