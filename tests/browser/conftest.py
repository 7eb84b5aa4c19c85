"""A browser for each file of tests, and windows of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chromium import PATIENCE_MS, Seen, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def view(browser: Any) -> Iterator[Callable[..., Seen]]:
    """Opens a page with the given traits of its reader; closed at the end."""
    contexts = []

    def opened(**traits: object) -> Seen:
        context = browser.new_context(**traits)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        return Seen(context.new_page())

    yield opened
    for context in contexts:
        context.close()
