"""Asking the gate's own HTTP API: an answer as JSON, or one of the gate's errors; never anything half read."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from gate.domain.errors import Forbidden, GateError, InvalidInput, NotFound, Unauthenticated, Unavailable
from gate.settings import Settings

LONGEST = 50_000_000
"""Bytes of an answer that are read."""
SET_TOKEN = "set GATE_API_TOKEN or GATE_API_TOKEN_FILE"
REFUSALS: Mapping[int, type[GateError]] = {401: Unauthenticated, 403: Forbidden, 404: NotFound}


def path(*parts: str) -> str:
    """A path of the API whose parts may hold anything.

    >>> path("v1", "verdicts", "a/b c", "3")
    '/v1/verdicts/a%2Fb%20c/3'
    """
    return "/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)


class GateClient:
    """Talks to one gate. Each call raises `NotFound`, `InvalidInput`, `Unauthenticated` or `Forbidden` as the gate
    says, and `Unavailable` where no answer came, or one that is not the gate's."""

    def __init__(self, url: str, timeout_s: float = 10.0, token: str | None = None) -> None:
        self.url, self._timeout_s, self._token = url.rstrip("/"), timeout_s, token
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"expected the gate's URL as http://… or https://…, found {url!r} (GATE_PUBLIC_URL)")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise InvalidInput("expected a token as `basin-gate token new` prints it, found other characters in it")

    @classmethod
    def of(cls, settings: Settings, url: str = "", timeout_s: float = 10.0) -> "GateClient":
        """A client of the gate that the settings name, or of another, with the settings' token."""
        return cls(url or settings.public_url, timeout_s, settings.token_of_api())

    def get(self, path: str) -> Any:
        """The document at a path."""
        return self._json(path, self.read(path))

    def post(self, path: str, document: Mapping[str, Any], also: frozenset[int] = frozenset()) -> tuple[int, Any]:
        """The status and document that answer a posted one; ``also`` are statuses that are answers besides 2xx."""
        status, body = self._sent(path, json.dumps(document).encode(), also)
        return status, self._json(path, body)

    def read(self, path: str) -> bytes:
        """The bytes at a path."""
        return self._sent(path, None, frozenset())[1]

    def _sent(self, path: str, document: bytes | None, also: frozenset[int]) -> tuple[int, bytes]:
        said = {} if document is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, document, said)  # noqa: S310  (http or https: see __init__)
        if self._token is not None:
            # Not to be sent on to wherever a redirection leads.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:  # noqa: S310  (http or https: see __init__)
                return reply.status, reply.read(LONGEST)
        except urllib.error.HTTPError as error:
            body = error.read(LONGEST)
            if error.code in also:
                return error.code, body
            told = f"{self.url}{path} answered {error.code}: {_detail(body)}"
            raise _refusal(error.code)(told + self._hint(error.code)) from error
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"expected the gate at {self.url} (GATE_PUBLIC_URL), found {error!s}") from error

    def _hint(self, status: int) -> str:
        """What to do about a refusal of the one who asks."""
        if status == 401:
            return " (the token of GATE_API_TOKEN or GATE_API_TOKEN_FILE)" if self._token else f" ({SET_TOKEN})"
        return ""

    def _json(self, path: str, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            raise Unavailable(
                f"expected JSON from the gate at {self.url}{path}, found {body[:80]!r}; is it the gate?"
            ) from error


def _refusal(status: int) -> type[GateError]:
    if status in REFUSALS:
        return REFUSALS[status]
    return InvalidInput if 400 <= status < 500 and status not in (408, 429) else Unavailable


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:600]
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
