"""Memory that belongs to this process alone, watched from a thread; memory-mapped files do not count."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.005


def anonymous() -> int:
    """This process's anonymous resident memory in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


@dataclass
class Growth:
    """The largest growth over the start, in bytes."""

    most: int = 0


@contextmanager
def watched() -> Iterator[Growth]:
    """Watches the growth of anonymous memory inside the block."""
    start, growth, done = anonymous(), Growth(), threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            growth.most = max(growth.most, anonymous() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()
        growth.most = max(growth.most, anonymous() - start)
