"""Running many checks at once, so that something that does not answer costs seconds and hides nothing else."""

import queue
import re
import threading
import time
from collections.abc import Iterable, Sequence

from gate.domain.errors import GateError
from gate.domain.examination import Check, Finding, unchecked

LIMIT_S = 45.0
"""Longest that one check may take, in seconds."""
CREDENTIALS = re.compile(r"(?<=//)[^/\s@]+@")


def examined(checks: Sequence[Check], limit_s: float = LIMIT_S) -> tuple[Finding, ...]:
    """The findings of each check in the order given; one that raises or takes too long is a finding too."""
    ended: queue.SimpleQueue[tuple[int, tuple[Finding, ...]]] = queue.SimpleQueue()
    for number, check in enumerate(checks):
        # A thread of its own that nobody waits for at the end: a socket may hang for as long as it likes.
        threading.Thread(target=_examine, args=(number, check, ended), daemon=True).start()
    found: dict[int, tuple[Finding, ...]] = {}
    deadline = time.monotonic() + limit_s
    while len(found) < len(checks):
        try:
            number, findings = ended.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[number] = findings
    return tuple(f for number, check in enumerate(checks) for f in found.get(number, _late(check, limit_s)))


def _examine(number: int, check: Check, ended: "queue.SimpleQueue[tuple[int, tuple[Finding, ...]]]") -> None:
    ended.put((number, tuple(_without_credentials(finding) for finding in _findings(check))))


def _without_credentials(finding: Finding) -> Finding:
    """Addresses stand in other people's errors, some with a user and a password in them."""
    told = {name: CREDENTIALS.sub("", getattr(finding, name)) for name in ("found", "expected", "fix")}
    return finding.model_copy(update=told)


def _findings(check: Check) -> Iterable[Finding]:
    try:
        yield from check.examine()
    except GateError as error:
        yield unchecked(check.name, "an answer", str(error), "put right what is said above, and examine again")
    except Exception as error:  # a check must not take the others with it, whatever befalls it
        found = f"{type(error).__name__}: {error}"
        yield unchecked(check.name, "a check that runs", found, "examine again; report it if it persists")


def _late(check: Check, limit_s: float) -> tuple[Finding, ...]:
    fix = "find out what does not answer: a firewall that drops packets, a name that resolves slowly"
    return (unchecked(check.name, f"an answer within {limit_s:.0f} s", "none", fix),)
