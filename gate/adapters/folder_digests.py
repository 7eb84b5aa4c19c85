"""The sha256 of every file of a folder, several files at a time, without loading or following anything."""

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gate.domain.checkpoint import FileDigest
from gate.domain.errors import InvalidInput, Unverified

Stamp = tuple[int, ...]
"""Size, times of change, inode and device: what tells a file that was left alone from one that was touched."""


class DigestCache:
    """Digests of files hashed before, kept line by line, so that an interrupted run goes on where it was.

    It believes a file unchanged whose size, inode and times of change are the same; whoever can write this cache
    decides what is believed. Hash without it wherever that is not only yourself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known = dict(_kept(path))

    def get(self, path: Path, stamp: Stamp) -> str | None:
        """The digest of a file that looks the same as when it was hashed."""
        return self._known.get((str(path), stamp))

    def keep(self, path: Path, stamp: Stamp, sha256: str) -> None:
        """Remembers a digest, on disk too."""
        line = json.dumps({"path": str(path), "stamp": stamp, "sha256": sha256})
        # The line break stands first: what an interrupted run left half written stays a line of its own.
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")


def folder_digests(root: Path, *, cache: DigestCache | None = None) -> tuple[FileDigest, ...]:
    """Every file below ``root`` by its path inside it. Raises `Unverified` for links, devices and files that
    change meanwhile, `InvalidInput` for what cannot be read."""
    try:
        where = root.resolve(strict=True)
        if cache is not None and where in cache.path.resolve().parents:
            raise InvalidInput(f"expected the cache outside {root}, found it inside; name another place with --cache")
        # The largest first: a thread that starts on it last would keep all the others waiting.
        found = sorted(_plain_files(where), key=lambda path: -path.stat().st_size)
        with ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 4), thread_name_prefix="sha256") as pool:
            digests = list(pool.map(lambda path: _digest(path, where, cache), found))
    except OSError as error:
        raise InvalidInput(f"{root}: expected a folder that can be read, found: {error}") from error
    return tuple(sorted(digests, key=lambda file: file.path))


def _plain_files(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise InvalidInput(f"expected a folder of files at {root}, found a file; name the folder it lies in")
    # Without onerror, a folder that cannot be listed would count as an empty one.
    for at, folders, names in os.walk(root, onerror=_raise):
        links = [folder for folder in folders if (Path(at) / folder).is_symlink()]
        for name in (*names, *links):
            path = Path(at) / name
            shown = path.relative_to(root).as_posix()
            if not stat.S_ISREG(path.lstat().st_mode):
                raise Unverified(
                    f"{shown!r}: expected a plain file, found a link or a device; copy the folder (cp -rL)"
                )
            if not shown.isprintable():
                raise Unverified(f"{shown!r}: expected a file name that is text; no approval speaks of such a file")
            yield path


def _digest(path: Path, root: Path, cache: DigestCache | None) -> FileDigest:
    name = path.relative_to(root).as_posix()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        before = _stamp(file.fileno())
        known = cache.get(path, before) if cache else None
        sha256 = known or hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(file.fileno()) != before:
            raise Unverified(f"{name} was changed while it was read; nothing else may write to the folder")
    if cache is not None and known is None:
        cache.keep(path, before, sha256)
    return FileDigest(path=name, sha256=sha256, size=before[0])


def _stamp(handle: int) -> Stamp:
    found = os.fstat(handle)
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def _kept(path: Path) -> Iterator[tuple[tuple[str, Stamp], str]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            yield (str(entry["path"]), tuple(entry["stamp"])), str(entry["sha256"])
        except (ValueError, KeyError, TypeError):
            continue  # an empty line, or one that was being written when the run was interrupted


def _raise(error: OSError) -> None:
    raise error
