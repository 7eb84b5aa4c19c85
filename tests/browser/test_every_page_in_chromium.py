"""Every page of the dashboard serves every reader: by keyboard alone, in the dark, on a telephone, with a screen reader."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from chromium import OF_LIGHT_AND_WIDTH, PATIENCE_MS, Seen, needs_chromium
from playwright.sync_api import Browser, BrowserContext
from shown_pages import SHOWN, Shown, shown_pages

from gate.api.routes import PAGES, at

pytestmark = needs_chromium

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# A stream, and what FastAPI serves for programmers.
NOT_OURS = {"/evaluations/{key}/events", "/docs", "/docs/oauth2-redirect"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with shown_pages(tmp_path_factory.mktemp("pages")) as made:
        yield made


@pytest.fixture(scope="module")
def signed_in(browser: Browser, pages: Shown) -> Iterator[BrowserContext]:
    """Windows of somebody who has signed in and may do everything."""
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(f"{pages.url}/sign-in")
        page.get_by_label("Token").fill(pages.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{pages.url}/")
        yield context


@pytest.fixture(scope="module")
def stranger(browser: Browser) -> Iterator[BrowserContext]:
    """Windows of somebody who has not."""
    with browser.new_context() as context:
        yield context


@contextmanager
def reading(context: BrowserContext) -> Iterator[Seen]:
    """A window, closed at the end."""
    context.set_default_timeout(PATIENCE_MS)
    with context.new_page() as page:
        yield Seen(page)


def light(seen: Seen) -> None:
    seen.page.set_viewport_size(WIDE)
    seen.page.emulate_media(color_scheme="light")


def dark(seen: Seen) -> None:
    seen.page.set_viewport_size(NARROW)
    seen.page.emulate_media(color_scheme="dark")


def test_every_page_that_is_served_is_walked(pages: Shown) -> None:
    walked = {at(pages.path(name))["GET"].template for name in SHOWN}
    assert walked == {template for _, template in PAGES} - NOT_OURS | {"/sign-in"}


def in_order(reached: list[str], wanted: list[str]) -> bool:
    """Whether all that is wanted was reached in its order, wherever on the page the focus began."""
    begun = reached.index(wanted[0]) if set(wanted[:1]) & set(reached) else 0
    return [each for each in reached[begun:] + reached[:begun] if each in wanted] == wanted


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_serves_every_reader_and_runs_nothing_foreign(
    signed_in: BrowserContext, stranger: BrowserContext, pages: Shown, name: str
) -> None:
    with reading(signed_in if SHOWN[name].signed_in else stranger) as seen:
        light(seen)
        page = seen.go(pages.address(name))
        if pressed := SHOWN[name].pressed:
            with page.expect_navigation():
                page.get_by_role("button", name=pressed, exact=True).click()
        assert SHOWN[name].says in page.locator("body").inner_text()
        stops = seen.stops()
        assert in_order([element for element, _ in stops], seen.operable())
        assert [element for element, outline in stops if outline == "none"] == []

        for fold in page.locator("details:not([open]) > summary").all():
            fold.click()
        assert seen.barriers() == []
        assert seen.overflow() <= 0
        dark(seen)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 24)"
        assert seen.barriers(OF_LIGHT_AND_WIDTH) == []
        assert seen.overflow() <= 0
        assert page.title() != "taken"
        # The browser itself tells the console of an answer that is no success.
        assert [each for each in seen.complaints if "status of 404" not in each] == []
        assert all(each.startswith(pages.url) for each in seen.asked)
