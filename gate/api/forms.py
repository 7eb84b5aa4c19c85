"""What a form of a page sends."""

from collections.abc import Mapping
from urllib.parse import parse_qs

from fastapi import Request

from gate.api.problems import Oversized

LONGEST = 8192


async def fields(request: Request) -> Mapping[str, str]:
    """The form's fields, the first of each name. Raises `Oversized`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise Oversized(f"expected a form of at most {LONGEST} bytes, found more")
    return {name: values[0] for name, values in parse_qs(bytes(body).decode(errors="replace")).items()}
