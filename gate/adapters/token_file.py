"""The file of tokens, read again whenever it has changed. One that cannot be read lets nobody in."""

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from gate.adapters.marked_yaml import read_marked
from gate.domain.access import TokenEntry
from gate.domain.errors import GateError, InvalidInput, Unavailable

log = structlog.get_logger(__name__)
EXAMPLE = "- {name: NAME, role: reader, sha256: …}, as `basin-gate token new NAME --role reader` prints it"


def read_tokens(file: Path) -> Sequence[TokenEntry]:
    """The entries of a token file. Raises `InvalidInput` with file, line, what was expected and what was found."""
    try:
        empty = not file.read_bytes().strip()
    except OSError as error:
        found = f"found: {error.strerror}; check GATE_TOKENS_FILE"
        raise InvalidInput(f"{file}: expected a file of tokens that can be read, {found}") from error
    if empty:
        raise InvalidInput(f"{file}:1: expected a list with at least one token, found an empty file; write {EXAMPLE}")
    document = read_marked(file)
    if not isinstance(document.value, list) or not document.value:
        raise InvalidInput(f"{file}:1: expected a list with at least one token, found none; write {EXAMPLE}")
    entries = [_entry(file, document.line((n,)), value) for n, value in enumerate(document.value)]
    for what, values in (("name", [e.name for e in entries]), ("token", [e.sha256 for e in entries])):
        if repeated := [n for n, value in enumerate(values) if Counter(values)[value] > 1]:
            where = f"{file}:{document.line((repeated[-1],))}"
            raise InvalidInput(f"{where}: expected each {what} once, found one again; remove one of the lines")
    return entries


def _entry(file: Path, line: int, value: object) -> TokenEntry:
    try:
        return TokenEntry.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        # Never what was found: somebody who wrote the token itself there would read it in the log.
        raise InvalidInput(f"{file}:{line}: expected {EXAMPLE}, found otherwise: {where}: {first['type']}") from error


class TokenFile:
    """The tokens as the file has them now. Raises `InvalidInput` when made of a malformed file."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._seen = self._state()
        self._entries: Sequence[TokenEntry] | None = read_tokens(file)

    def entries(self) -> Sequence[TokenEntry]:
        """Every entry. Raises `Unavailable` while the file is malformed or gone."""
        with self._lock:
            now = self._state()
            if now != self._seen:
                self._seen = now
                self._entries = self._read_again()
            if self._entries is None:
                raise Unavailable("expected a token file that can be read, found otherwise; see the gate's log")
            return self._entries

    def _state(self) -> tuple[int, ...] | None:
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev)

    def _read_again(self) -> Sequence[TokenEntry] | None:
        try:
            entries = read_tokens(self._file)
        except GateError as error:
            log.error("token file refused, nobody is let in", file=str(self._file), error=str(error))
            return None
        log.info("token file read", file=str(self._file), tokens=len(entries))
        return entries
