"""Reading a file in pieces, with or without its sha256 falling out of the same read.

Pieces are read into fresh buffers with ``pread``: no mapping, so a file that shrinks meanwhile is an error and not
a crash of the process, and what is hashed is the very buffer that is measured.
"""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from gate.domain.errors import InvalidInput

PIECE = 1 << 22
"""Bytes read at once where the reader chooses."""


class Reader(Protocol):
    """An open file: its size in bytes, and any range of it."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def read(self, start: int, count: int) -> bytearray: ...

    def close(self) -> None: ...


class PlainReader:
    """Reads ranges of a file in any order; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # O_NOFOLLOW: a checkpoint's files are files; a link could lead out of the folder.
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.size = os.fstat(self._fd).st_size

    def read(self, start: int, count: int) -> bytearray:
        """Exactly ``count`` bytes from ``start``; fewer in the file is an error."""
        buffer = bytearray(count)
        view, done = memoryview(buffer), 0
        while done < count:
            got = os.preadv(self._fd, [view[done:]], start + done)
            if got == 0:
                raise InvalidInput(
                    f"{self.path.name}: expected {start + count:,} bytes or more, found {start + done:,}: "
                    "the file is truncated; upload it again and register a new version"
                )
            done += got
        return buffer

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DigestingReader:
    """Reads ranges of a file and hashes every byte of it once, in file order, in a thread beside the reader.

    Ranges read in file order are hashed from the buffer that was handed out. A range ahead of the hash makes it
    catch up; a range behind it was hashed before.
    """

    def __init__(self, path: Path) -> None:
        self._plain = PlainReader(path)
        self.path, self.size = path, self._plain.size
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")
        self._pending: Future[None] | None = None
        self.closed = False

    def read(self, start: int, count: int) -> bytearray:
        """Exactly ``count`` bytes from ``start``."""
        self._catch_up(start)
        buffer = self._plain.read(start, count)
        fresh = start + count - self._hashed
        if fresh > 0:
            self._hash(memoryview(buffer)[count - fresh :])
        return buffer

    def finish(self) -> str:
        """The sha256 of the whole file, reading what was not asked for, and closes the file."""
        self._catch_up(self.size)
        self._settle()
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Closes the file and its thread; may be called again."""
        self.closed = True
        self._thread.shutdown(wait=True)
        self._plain.close()

    def _catch_up(self, to: int) -> None:
        while self._hashed < to:
            self._hash(memoryview(self._plain.read(self._hashed, min(PIECE, to - self._hashed))))

    def _hash(self, piece: memoryview) -> None:
        # One piece in flight at most: the thread may lag behind the reader, memory may not grow with it.
        self._settle()
        self._hashed += len(piece)
        self._pending = self._thread.submit(self._sha256.update, piece)

    def _settle(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    return DigestingReader(path).finish()
