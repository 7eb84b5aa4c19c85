"""Ends a stack's processes once whoever started them is gone, even if it was killed and could end nothing itself.

Run as a script of its own that imports nothing of the product. Standard input says ``+GROUP`` for each process group
that was started and ``-GROUP`` for each that has ended; its end means that the starter is gone.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_S = 3.0
LOOK_EVERY_S = 0.05


def left_over(lines: Iterable[str]) -> list[int]:
    """The groups that were started and have not ended, in starting order.

    >>> left_over(["+10", "+11", "-10", "+12"])
    [11, 12]
    """
    groups: list[int] = []
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.append(group)
        elif group in groups:
            groups.remove(group)
    return groups


def end(groups: list[int], grace_s: float = GRACE_S) -> None:
    """Ask each group's leader to end, then kill whatever of the groups is left after the grace."""
    for group in reversed(groups):
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(_alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    # Nobody but the starter's end tells it to go: it must outlive what it minds.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    end(left_over(sys.stdin))
