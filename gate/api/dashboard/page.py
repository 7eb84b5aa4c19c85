"""What all pages have in common: their frame, their security headers, and errors that a person can read."""

import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from gate.api.access import CALLER
from gate.api.problems import status_of
from gate.domain.errors import GateError
from gate.pages.assets import ASSETS
from gate.pages.rendering import render

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page(template: str, *, status: int = 200, here: str = "", **values: object) -> HTMLResponse:
    """A page of the dashboard; ``here`` names its place in the navigation."""
    assets = {name: f"/static/{name}?v={asset.digest[:12]}" for name, asset in ASSETS.items()}
    caller = CALLER.get()
    shown = render(template, here=here, assets=assets, caller=caller.name if caller else "", **values)
    return HTMLResponse(shown, status, HEADERS | {"Content-Security-Policy": POLICY})


class PageRoute(APIRoute):
    """Answers an error of the gate with a page instead of a problem document."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                response = await handle(request)
            except GateError as error:
                status: HTTPStatus = status_of(error)
                response = page("problem.html", status=status.value, title=status.phrase, detail=str(error))
            response.headers["Server-Timing"] = f"page;dur={1000 * (time.perf_counter() - begun):.1f}"
            return response

        return handled
