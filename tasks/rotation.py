"""Which of its hidden items a suite asks in a period: others in the next, and nobody knows which without the secret.

The draw is a function of the secret, the period and the items alone: every worker of a gate draws the same ones, and who
holds the secret can tell afterwards which they were.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from gate.domain.errors import InvalidInput
from gate.settings import settings

SHORTEST = 32
"""Bytes that a secret has at least."""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of whole days in UTC: the ``index``-th of its length since the beginning of 1970.

    >>> str(Period.at(86_400.0 * 35, days=30)), Period.at(0.0, days=7).before(1)
    ('1970-01-31 to 1970-03-01', Period(index=-1, days=7))
    """

    index: int
    days: int

    @classmethod
    def at(cls, now: float, days: int) -> "Period":
        """The period of that length that holds ``now``, in Unix seconds."""
        return cls(int(now // (days * DAY_S)), days)

    def before(self, periods: int) -> "Period":
        """So many periods earlier."""
        return Period(self.index - periods, self.days)

    def __str__(self) -> str:
        first = date(1970, 1, 1) + timedelta(days=self.index * self.days)
        return f"{first} to {first + timedelta(days=self.days - 1)}"


def draw(lines: Sequence[bytes], most: int, secret: bytes, period: Period, about: str) -> list[int]:
    """The places of ``most`` of the lines, in their order: those whose keyed digest in this period is smallest.

    ``about`` says what they are items of, so that two capabilities with the same file do not ask the same ones.
    """
    told = f"{about}\0{period.days}\0{period.index}\0".encode()
    ranked = sorted(range(len(lines)), key=lambda place: (keyed(secret, told + lines[place]), place))
    return sorted(ranked[:most])


def keyed(secret: bytes, content: bytes) -> str:
    """The digest by which nobody without the secret can confirm a guess at the content."""
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


def secret_of_rotation() -> bytes:
    """The secret that hidden items are drawn with. Raises `InvalidInput` where there is none, two, or one too short."""
    given, path = settings().hidden_items_secret, settings().hidden_items_secret_file
    advice = f"write one with: openssl rand -hex {SHORTEST}"
    found = [*([given.get_secret_value().strip().encode()] if given else []), *([_read(path)] if path else [])]
    if len(found) != 1:
        raise InvalidInput(
            "expected GATE_HIDDEN_ITEMS_SECRET or GATE_HIDDEN_ITEMS_SECRET_FILE for a suite with hidden items, found "
            f"{'both' if found else 'neither'}; give every worker and `basin-gate base` the same one; {advice}"
        )
    (secret,) = found
    if len(secret) < SHORTEST:
        raise InvalidInput(
            f"GATE_HIDDEN_ITEMS_SECRET: expected {SHORTEST} bytes or more, found {len(secret)}; {advice}"
        )
    return secret


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise InvalidInput(f"GATE_HIDDEN_ITEMS_SECRET_FILE: expected a secret, found {error.strerror}") from error
