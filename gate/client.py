"""Asking the gate's own HTTP API: an answer as JSON, or one of the gate's errors; never anything half read."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from gate.domain.errors import InvalidInput, NotFound, Unavailable

LONGEST = 50_000_000
"""Bytes of an answer that are read."""


def path(*parts: str) -> str:
    """A path of the API whose parts may hold anything.

    >>> path("v1", "verdicts", "a/b c", "3")
    '/v1/verdicts/a%2Fb%20c/3'
    """
    return "/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)


class GateClient:
    """Talks to one gate. Each call raises `NotFound` or `InvalidInput` as the gate says, and `Unavailable` where no
    answer came, or one that is not the gate's."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def get(self, path: str) -> Any:
        """The document at a path."""
        return self._json(path, self.read(path))

    def post(self, path: str, document: Mapping[str, Any], also: frozenset[int] = frozenset()) -> tuple[int, Any]:
        """The status and document that answer a posted one; ``also`` are statuses that are answers besides 2xx."""
        request = urllib.request.Request(  # noqa: S310  (the operator's own URL)
            self.url + path, json.dumps(document).encode(), {"Content-Type": "application/json"}
        )
        status, body = self._sent(path, request, also)
        return status, self._json(path, body)

    def read(self, path: str) -> bytes:
        """The bytes at a path."""
        return self._sent(path, urllib.request.Request(self.url + path), frozenset())[1]  # noqa: S310  (as above)

    def _sent(self, path: str, request: urllib.request.Request, also: frozenset[int]) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:  # noqa: S310  (as above)
                return reply.status, reply.read(LONGEST)
        except urllib.error.HTTPError as error:
            body = error.read(LONGEST)
            if error.code in also:
                return error.code, body
            raise _refusal(error.code)(f"{self.url}{path} answered {error.code}: {_detail(body)}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"expected the gate at {self.url} (GATE_PUBLIC_URL), found {error!s}") from error

    def _json(self, path: str, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            raise Unavailable(
                f"expected JSON from the gate at {self.url}{path}, found {body[:80]!r}; is it the gate?"
            ) from error


def _refusal(status: int) -> type[NotFound | InvalidInput | Unavailable]:
    if status == 404:
        return NotFound
    return InvalidInput if 400 <= status < 500 and status not in (408, 429) else Unavailable


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:600]
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
