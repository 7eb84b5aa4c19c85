"""The dashboard's few files, served under their digest and so for ever."""

from fastapi import APIRouter, Response

from gate.domain.errors import NotFound
from gate.pages.assets import ASSETS

router = APIRouter(prefix="/static")


@router.get("/{name}")
def asset(name: str) -> Response:
    """One file."""
    found = ASSETS.get(name)
    if found is None:
        raise NotFound(f"expected one of {', '.join(ASSETS)}, found {name[:80]!r}")
    kept = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(found.body, media_type=found.media_type, headers=kept)
