"""Pages in Debian's Chromium, and whatever the browser complained of while they were shown."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

PATIENCE_MS = 120_000
# Playwright waits five seconds for what a test expects: too few for MLflow's own pages where three browsers share two cores.
expect.set_options(timeout=PATIENCE_MS)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What a reader can act on, but for what is folded away or hidden.
OPERABLE = (
    "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')]"
    ".filter(each => each.checkVisibility())"
)
# Where the focus has come to: nothing where it has left the page, "again" where it has been before.
STOP = """() => {
  const at = document.activeElement, seen = (window.stops ??= []);
  if (seen.includes(at)) return "again";
  seen.push(at);
  return at === document.body ? null : [at.outerHTML.slice(0, 120), getComputedStyle(at).outlineStyle];
}"""
OF_LIGHT_AND_WIDTH = ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]
"""The rules of axe-core whose answer may change with the theme and the width of one and the same page."""


@dataclass
class Seen:
    """A page and whatever the browser complained of while it was shown."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, address: str) -> Page:
        self.page.goto(address)
        return self.page

    def overflow(self) -> int:
        """Points by which the page is wider than its window."""
        return int(self.page.evaluate(OVERFLOW))

    def barriers(self, rules: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
        """What axe-core finds serious on the page as it is shown now (by these rules alone)."""
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        found = Axe().run(self.page, options=options).response["violations"]
        return [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found if v["impact"] in ("serious", "critical")]  # fmt: skip

    def stops(self, most: int = 400) -> list[tuple[str, str]]:
        """Where the focus stands after each press of Tab until it comes round: the element and its outline."""
        found: list[tuple[str, str]] = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            at = self.page.evaluate(STOP)
            if at == "again":
                return found
            found += [(at[0], at[1])] if at else []
        raise AssertionError(f"expected the focus to come round within {most} presses of Tab, found it held")

    def operable(self) -> list[str]:
        """Everything on the page that a reader can act on, in its order."""
        return list(self.page.evaluate(f"{OPERABLE}.map(each => each.outerHTML.slice(0, 120))"))


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, running."""
    with sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield opened
        opened.close()
