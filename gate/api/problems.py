"""The gate's errors as HTTP answers (RFC 9457 problem documents). The only place that knows both."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gate.domain.errors import Forbidden, GateError, InvalidInput, NotFound, Unauthenticated, Unavailable, Unverified


class Oversized(InvalidInput):
    """A body larger than the door takes."""


STATUSES: Mapping[type[GateError], HTTPStatus] = {
    Oversized: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidInput: HTTPStatus.BAD_REQUEST,
    Unverified: HTTPStatus.UNAUTHORIZED,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_AFTER_S = 2
"""MLflow obeys it, and gives a delivery up after three more tries: soon, but not at once."""


def problem(status: HTTPStatus, detail: str) -> JSONResponse:
    """A problem document."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    content = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(content, status.value, headers, "application/problem+json")


def status_of(error: Exception) -> HTTPStatus:
    """The status that an error is answered with."""
    return next((s for kind, s in STATUSES.items() if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


async def _answer(_: Request, error: Exception) -> JSONResponse:
    return problem(status_of(error), str(error))


def answer_problems(app: FastAPI) -> None:
    """Let every error of the gate be answered by its status."""
    app.add_exception_handler(GateError, _answer)
