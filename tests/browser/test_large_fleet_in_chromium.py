"""A fleet of ten thousand evaluations in a real browser: found, sorted and walked to its end, and light all the while."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Seen, needs_chromium
from playwright.sync_api import Page, Response

pytestmark = needs_chromium

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COUNT = 10_000
BLOCKED = range(3, COUNT, 7)
"""The numbers of the blocked ones, the newest first."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The benchmark's fleet, which the real application serves from a real ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import fleet_page

        ledger = fleet_page.filled(tmp_path_factory.mktemp("fleet"), COUNT)
        with fleet_page.served(ledger) as address:
            yield address
        ledger.close()
        del sys.modules["fleet_page"]


@pytest.fixture
def seen(view) -> Iterator[Seen]:
    """A window; what it is sent never weighs more than a page of the fleet may."""
    opened, weights = view(viewport={"width": 1280, "height": 900}), []

    def weigh(response: Response) -> None:
        weights.append(int(response.headers["content-length"]))

    opened.page.on("response", weigh)
    yield opened
    assert 0 < max(weights) < 300_000
    assert opened.complaints == []


def names(page: Page) -> list[str]:
    """The versions that the page shows, in their order."""
    return page.locator(".list tbody th").all_inner_texts()


def test_the_fleet_tells_how_many_there_are_of_each_outcome_and_shows_the_newest(seen: Seen, url: str) -> None:
    page = seen.go(url)
    assert "10000 evaluations" in page.locator(".head").inner_text()
    assert page.locator(".counts a.blocked b").inner_text() == str(len(BLOCKED))
    assert names(page)[::49] == ["team-0/assistant-0 v0", "team-49/assistant-49 v49"]
    assert seen.overflow() <= 0


def test_one_model_is_found_among_them_all_and_the_address_holds_what_was_asked(seen: Seen, url: str) -> None:
    page = seen.go(url)
    page.get_by_label("Model name holds").fill("assistant-77")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**text=assistant-77**")
    found = names(page)
    assert len(found) == 50
    assert all("assistant-77" in name for name in found)
    page.get_by_label("Sort").select_option("name")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**sort=name**")
    found = names(page)
    assert found == sorted(found)
    page.reload()
    assert names(page) == found


def test_what_is_filtered_is_walked_to_its_last_page_each_shown_once_and_back(seen: Seen, url: str) -> None:
    expected = [number for number in BLOCKED if f"{number % 97}".startswith("3")]
    page = seen.go(f"{url}/?text=team-3")
    page.locator(".counts a.blocked").click()
    page.wait_for_url("**outcome=blocked**")
    first = names(page)
    found = list(first)
    while (following := page.get_by_role("link", name="Next page")).count():
        with page.expect_navigation():
            following.click()
        assert page.locator(".list .badge:not(.blocked)").count() == 0
        found += names(page)
    assert found == [f"team-{number % 97}/assistant-{number % 1013} v{number}" for number in expected]
    page.get_by_role("link", name="First page").click()
    page.wait_for_url(lambda address: "after=" not in address)
    assert names(page) == first
