"""A digest that falls out of reading is the file's digest, in whatever order the file was read."""

import hashlib
from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gate.domain.errors import InvalidInput
from tasks.file_reading import Buffers, DigestingReader, PlainReader, sha256_of

CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reading") / "file"
    path.write_bytes(CONTENT)
    return path


ranges = st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 3000)).map(
    lambda r: (r[0], min(r[1], len(CONTENT) - r[0]))
)


@given(wanted=st.lists(ranges, max_size=8))
def test_reading_in_any_order_gives_the_bytes_and_the_digest(path: Path, wanted: list[tuple[int, int]]) -> None:
    reader = DigestingReader(path)
    for start, count in wanted:
        assert reader.read(start, count) == CONTENT[start : start + count]
    assert reader.finish() == hashlib.sha256(CONTENT).hexdigest()


@given(
    pieces=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 300)), max_size=20),
    held=st.integers(1, 5),
)
def test_a_piece_stays_what_was_read_for_as_long_as_anyone_holds_it(
    path: Path, pieces: list[tuple[int, int]], held: int
) -> None:
    reader, kept = DigestingReader(path), deque[tuple[bytes, torch.Tensor]](maxlen=held)
    for start, most in pieces:
        count = min(most, len(CONTENT) - start)
        kept.append((CONTENT[start : start + count], torch.frombuffer(reader.read(start, count), dtype=torch.uint8)))
        assert all(bytes(tensor.numpy()) == expected for expected, tensor in kept)
    assert reader.finish() == hashlib.sha256(CONTENT).hexdigest()


def test_memory_is_used_again_once_it_is_let_go() -> None:
    buffers = Buffers()
    first, second = buffers.take(100), buffers.take(100)
    first[:1], second[:1] = b"1", b"2"
    assert bytes(first[:1]) == b"1"
    del first
    again = buffers.take(50)
    assert (bytes(again[:1]), len(again)) == (b"1", 50)


def test_an_empty_file_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_of(tmp_path / "empty") == hashlib.sha256(b"").hexdigest()


def test_reading_past_the_end_says_that_the_file_is_truncated(path: Path) -> None:
    reader = PlainReader(path)
    with pytest.raises(InvalidInput, match="truncated"):
        reader.read(len(CONTENT) - 1, 2)
    reader.close()
    reader.close()


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(CONTENT)
    reader = DigestingReader(path)
    reader.read(0, 10)
    path.write_bytes(CONTENT[:100])
    with pytest.raises(InvalidInput, match="truncated"):
        reader.finish()
    reader.close()


def test_a_link_is_not_followed(tmp_path: Path, path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        PlainReader(tmp_path / "link")
