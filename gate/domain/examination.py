"""What an examination of an installation finds: one finding per fact, with what would be right and how to get there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from gate.domain.checkpoint import Frozen


class Health(StrEnum):
    """A finding's word. ``unchecked`` is no ok: something stood in the way of looking."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNCHECKED = "unchecked"


class Finding(Frozen):
    """One fact about the installation. ``expected`` and ``fix`` are empty where it is ok."""

    check: str
    health: Health
    found: str
    expected: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A part of the examination: its name, and what makes its findings. What it raises means: not checked."""

    name: str
    examine: Callable[[], Iterable[Finding]]


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check=check, health=Health.OK, found=found)


def warning(check: str, expected: str, found: str, fix: str) -> Finding:
    """It works, and may come to disappoint."""
    return Finding(check=check, health=Health.WARNING, expected=expected, found=found, fix=fix)


def problem(check: str, expected: str, found: str, fix: str) -> Finding:
    """It does not work, or does not protect."""
    return Finding(check=check, health=Health.PROBLEM, expected=expected, found=found, fix=fix)


def unchecked(check: str, expected: str, found: str, fix: str) -> Finding:
    """It could not be found out."""
    return Finding(check=check, health=Health.UNCHECKED, expected=expected, found=found, fix=fix)
