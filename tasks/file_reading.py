"""Reading a file in pieces, with or without its sha256 falling out of the same read.

Pieces are read with ``pread``, each into a buffer of its own: no mapping, so a file that shrinks meanwhile is an error
and not a crash of the process, and what is hashed is the very buffer that is measured.
"""

import hashlib
import os
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from gate.domain.errors import InvalidInput

PIECE = 1 << 22
"""Bytes read at once where the reader chooses."""

AHEAD = 2
"""Pieces that may wait to be hashed: the hash is never idle for want of one, and memory does not grow."""

LARGEST_KEPT = 1 << 23
"""Bytes of the largest buffer that is used again: a run of a million float64."""


class Reader(Protocol):
    """An open file: its size in bytes, and any range of it."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def read(self, start: int, count: int) -> memoryview: ...

    def close(self) -> None: ...


class PlainReader:
    """Reads ranges of a file in any order; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # O_NOFOLLOW: a checkpoint's files are files; a link could lead out of the folder.
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.size = os.fstat(self._fd).st_size

    def read(self, start: int, count: int) -> memoryview:
        """Exactly ``count`` bytes from ``start``, in memory of their own; fewer in the file is an error."""
        return self.fill(memoryview(bytearray(count)), start)

    def fill(self, view: memoryview, start: int) -> memoryview:
        """The view, filled with the bytes from ``start``; fewer in the file is an error."""
        done = 0
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], start + done)
            if got == 0:
                raise InvalidInput(
                    f"{self.path.name}: expected {start + len(view):,} bytes or more, found {start + done:,}: "
                    "the file is truncated; upload it again and register a new version"
                )
            done += got
        return view

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Buffers:
    """Memory for pieces, used again once nobody holds a piece any more: fresh pages cost as much as reading into them."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()

    def take(self, count: int) -> memoryview:
        """A writable view of ``count`` bytes that nobody else has while it, or a view or tensor made of it, lives."""
        if count > LARGEST_KEPT:
            return memoryview(bytearray(count))
        memory = self._fitting(count)
        owner = np.ndarray((count,), np.uint8, buffer=memory)
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return memoryview(owner)  # type: ignore[arg-type]  # numpy does not say that arrays are buffers

    def _fitting(self, count: int) -> bytearray:
        try:
            memory = self._free.pop()
        except IndexError:
            return bytearray(count)
        return memory if len(memory) >= count else bytearray(count)


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
        self._pending: deque[Future[None]] = deque()
        self._buffers = Buffers()
        self.closed = False

    def read(self, start: int, count: int) -> memoryview:
        """Exactly ``count`` bytes from ``start``, which are the reader's alone and not to be written to."""
        self._catch_up(start)
        piece = self._plain.fill(self._buffers.take(count), start)
        fresh = start + count - self._hashed
        if fresh > 0:
            self._hash(piece[count - fresh :])
        return piece

    def finish(self) -> str:
        """The sha256 of the whole file, reading what was not asked for, and closes the file."""
        self._catch_up(self.size)
        self._settle(0)
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Closes the file and its thread; may be called again."""
        self.closed = True
        self._thread.shutdown(wait=True)
        self._plain.close()

    def _catch_up(self, to: int) -> None:
        while self._hashed < to:
            count = min(PIECE, to - self._hashed)
            self._hash(self._plain.fill(self._buffers.take(count), self._hashed))

    def _hash(self, piece: memoryview) -> None:
        # The thread may lag behind the reader by so much; memory may not grow with it.
        self._settle(AHEAD - 1)
        self._hashed += len(piece)
        self._pending.append(self._thread.submit(self._sha256.update, piece))

    def _settle(self, waiting: int) -> None:
        while len(self._pending) > waiting:
            self._pending.popleft().result()


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    return DigestingReader(path).finish()
