"""What a form of a page sends."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qs

from fastapi import Request
from pydantic import BaseModel, ValidationError

from gate.api.problems import Oversized
from gate.domain.errors import InvalidInput

LONGEST = 8192
Asked = TypeVar("Asked", bound=BaseModel)


async def fields(request: Request, longest: int = LONGEST) -> Mapping[str, str]:
    """The form's fields, the first of each name. Raises `Oversized`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > longest:
            raise Oversized(f"expected a form of at most {longest} bytes, found more")
    return {name: values[0] for name, values in parse_qs(bytes(body).decode(errors="replace")).items()}


def checked(kind: type[Asked], given: Mapping[str, object]) -> Asked:
    """What a form's fields ask for. Raises `InvalidInput` that names the first field that is not as it should be."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][0] if first["loc"] else "the form"
        raise InvalidInput(f"expected a form that is filled in, found at {place}: {first['msg']}") from error
