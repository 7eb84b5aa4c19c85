"""One safetensors file, read piece by piece, its header trusted in nothing.

The header is a claim by whoever wrote the file. It is checked whole before any tensor is made: size, JSON without
repeated keys, known dtypes, byte ranges that fit the shapes and tile the data exactly, without gap or overlap.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gate.domain.errors import InvalidInput
from tasks.file_reading import PlainReader, Reader

MAX_HEADER = 16 << 20
"""Largest header read, in bytes; 100 000 tensors need about 12 MB, and JSON takes ten times its size in memory."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}

WEIGHT_DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""The dtypes that hold plain weights; all others are buffers or quantised codes."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: its dtype, shape, and absolute byte range in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numel(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def is_weight(self) -> bool:
        """Whether its numbers are plain floating-point weights."""
        return self.dtype in WEIGHT_DTYPES


class SafetensorsFile:
    """An open safetensors file: its tensors' entries, and any run of a tensor's numbers."""

    def __init__(self, reader: Reader) -> None:
        self.path, self.reader = reader.path, reader
        self.entries: Mapping[str, TensorEntry] = _entries(reader)

    @classmethod
    def open(cls, path: Path) -> "SafetensorsFile":
        """Opens and checks a file; raises InvalidInput where it is not a sound safetensors file."""
        reader = PlainReader(path)
        try:
            return cls(reader)
        except InvalidInput:
            reader.close()
            raise

    def flat(self, name: str, first: int, count: int) -> Tensor:
        """``count`` numbers of a tensor from the ``first`` in row-major order, as a tensor of its own memory."""
        entry = self.entries[name]
        if not 0 <= first <= first + count <= entry.numel:
            raise InvalidInput(f"{name}: expected a run inside {entry.numel} numbers, found [{first}, {first + count})")
        if count == 0:
            return torch.empty(0, dtype=entry.dtype)
        width = entry.dtype.itemsize
        return torch.frombuffer(self.reader.read(entry.start + first * width, count * width), dtype=entry.dtype)

    def tensor(self, name: str) -> Tensor:
        """A whole tensor."""
        entry = self.entries[name]
        return self.flat(name, 0, entry.numel).reshape(entry.shape)

    def close(self) -> None:
        """Closes the file; may be called again."""
        self.reader.close()


def _entries(reader: Reader) -> Mapping[str, TensorEntry]:
    name = reader.path.name
    if reader.size < 8:
        raise _broken(name, "an 8-byte header length", f"{reader.size} bytes")
    length = int.from_bytes(reader.read(0, 8), "little")
    if length > min(MAX_HEADER, reader.size - 8):
        limit = f"a header of at most {min(MAX_HEADER, reader.size - 8):,} bytes"
        raise _broken(name, limit, f"a header length of {length:,}")
    header = _parse(name, bytes(reader.read(8, length)))
    header.pop("__metadata__", None)
    entries = {key: _entry(name, key, value, 8 + length) for key, value in header.items()}
    _check_tiling(name, entries, 8 + length, reader.size)
    return entries


def _parse(name: str, header: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(header, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError) as error:
        raise _broken(name, "a JSON header", f"{type(error).__name__}: {error}"[:200]) from error
    if not isinstance(parsed, dict):
        raise _broken(name, "a JSON object as header", type(parsed).__name__)
    return parsed


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Parsers differ in which of two equal keys they keep: what is measured could differ from what is served.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _entry(name: str, key: str, value: Any, data: int) -> TensorEntry:
    try:
        dtype, shape = DTYPES[value["dtype"]], tuple(_natural(n) for n in value["shape"])
        start, end = (_natural(n) for n in value["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        expected = f"tensor {key!r} with a known dtype, a shape and two data offsets"
        raise _broken(name, expected, str(value)[:120]) from error
    if math.prod(shape) * dtype.itemsize != end - start:
        expected = f"tensor {key!r} of shape {list(shape)} to take {math.prod(shape) * dtype.itemsize:,} bytes"
        raise _broken(name, expected, f"a byte range of {end - start:,}")
    return TensorEntry(dtype, shape, data + start, data + end)


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"expected a non-negative integer, found {number!r}")
    return number


def _check_tiling(name: str, entries: Mapping[str, TensorEntry], data: int, size: int) -> None:
    at = data
    for key, entry in in_file_order(entries):
        if entry.start != at:
            how = "overlaps the one before it" if entry.start < at else "leaves a gap before it"
            raise _broken(name, f"tensor {key!r} to start at byte {at:,}", f"byte {entry.start:,}: it {how}")
        at = entry.end
    if at > size:
        raise _broken(name, f"{at:,} bytes", f"{size:,}: the file is truncated")
    if at < size:
        raise _broken(name, f"{at:,} bytes", f"{size:,}: bytes after the last tensor belong to none")


def in_file_order(entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, TensorEntry]]:
    """The tensors as they lie in the file."""
    return iter(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))


def _broken(name: str, expected: str, found: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: expected {expected}, found {found}; write the file with safetensors, upload it whole "
        "and register a new version"
    )
