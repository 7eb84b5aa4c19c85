"""Webhook deliveries as a real MLflow server sent them, and forged ones in its form."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.domain.events import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

CAPTURES = Path(__file__).parent / "golden" / "deliveries"
CAPTURE_SECRET = "whsec-test-secret-0123456789"


@dataclass(frozen=True)
class Sent:
    """One HTTP attempt: its headers and its raw body."""

    headers: dict[str, str]
    body: bytes

    @property
    def at(self) -> int:
        return int(next(v for k, v in self.headers.items() if k.lower() == TIMESTAMP_HEADER))


def capture(name: str) -> Sent:
    """A delivery that MLflow 3.17.2 really sent."""
    head, body = (CAPTURES / f"{name}.http").read_bytes().replace(b"\r\n", b"\n").split(b"\n\n", 1)
    lines = head.decode().splitlines()[1:]
    length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
    return Sent(dict(line.split(": ", 1) for line in lines), body[:length])


def captures() -> list[str]:
    """The names of all kept deliveries."""
    return sorted(p.stem for p in CAPTURES.glob("*.http"))


def delivery(event: str, data: dict[str, Any], *, at: float, id: str = "d-1", secret: str = CAPTURE_SECRET) -> Sent:
    """A delivery in MLflow's form: ``event`` is ``entity.action``."""
    entity, action = event.split(".")
    envelope = {"entity": entity, "action": action, "timestamp": "2026-11-22T19:47:06+00:00", "data": data}
    return signed(json.dumps(envelope).encode(), at=at, id=id, secret=secret)


def signed(body: bytes, *, at: float, id: str = "d-1", secret: str = CAPTURE_SECRET) -> Sent:
    """Any bytes, signed as MLflow signs."""
    stamp = int(at)
    return Sent({ID_HEADER: id, TIMESTAMP_HEADER: str(stamp), SIGNATURE_HEADER: sign(id, stamp, body, secret)}, body)
