"""The files that the dashboard's pages ask for, with their digests: a changed file is another address."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    body: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """sha256 of the bytes."""
        return hashlib.sha256(self.body).hexdigest()


def _read(*names: str) -> bytes:
    folder = files("gate.pages") / "templates"
    return b"\n".join((folder / name).read_bytes() for name in names)


ASSETS: Mapping[str, Asset] = {
    "style.css": Asset(_read("style.css", "dashboard.css"), "text/css; charset=utf-8"),
    "live.js": Asset(_read("live.js"), "text/javascript; charset=utf-8"),
    "icon.svg": Asset(_read("icon.svg"), "image/svg+xml"),
}
