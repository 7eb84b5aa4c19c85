"""A safetensors header is a claim; each lie is found before a tensor is made of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_folders import safetensors_bytes
from safetensors.torch import load_file, save_file

from gate.domain.errors import InvalidInput
from tasks.safetensors_file import SafetensorsFile

F32_PAIR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def opened(folder: Path, content: bytes) -> SafetensorsFile:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return SafetensorsFile.open(path)


def test_reads_what_the_reference_library_wrote(tmp_path: Path) -> None:
    given = {
        "a": torch.randn(3, 5),
        "b": torch.randn(4).bfloat16(),
        "c": torch.arange(6).reshape(2, 3),
        "d": torch.tensor(2.5),
        "e": torch.empty(0, 4),
        "f": torch.tensor([True, False, True]),
        "g": torch.randn(7).half(),
    }
    save_file(given, tmp_path / "x.safetensors")
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
    assert set(file.entries) == set(given)
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        assert torch.equal(file.tensor(name), tensor)
        assert file.tensor(name).dtype == tensor.dtype
    assert torch.equal(file.flat("a", 4, 7), given["a"].reshape(-1)[4:11])


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"w": F32_PAIR}, b"\0" * 7, "truncated"),
        ({"w": F32_PAIR}, b"\0" * 9, "belong to none"),
        ({"w": F32_PAIR, "v": F32_PAIR | {"data_offsets": [4, 12]}}, b"\0" * 12, "overlaps"),
        ({"w": F32_PAIR, "v": F32_PAIR | {"data_offsets": [12, 20]}}, b"\0" * 20, "gap"),
        ({"w": F32_PAIR | {"data_offsets": [0, 10**12]}}, b"\0" * 8, "to take 8 bytes"),
        ({"w": F32_PAIR | {"shape": [10**9, 10**9]}}, b"\0" * 8, "byte range of 8"),
        ({"w": F32_PAIR | {"shape": [-2]}}, b"\0" * 8, "a shape"),
        ({"w": F32_PAIR | {"shape": [2.0]}}, b"\0" * 8, "a shape"),
        ({"w": F32_PAIR | {"data_offsets": [8, 0]}}, b"\0" * 8, "to take 8 bytes"),
        ({"w": F32_PAIR | {"dtype": "F7"}}, b"\0" * 8, "known dtype"),
        ({"w": [1, 2]}, b"\0" * 8, "known dtype"),
        ([], b"", "JSON object"),
        (b"{not json", b"", "JSON header"),
        (b"[" * 60_000, b"", "JSON header"),
        (b'{"w": 1, "w": 2}', b"", "stands twice"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, header: Any, data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        opened(tmp_path, safetensors_bytes(header, data))


def test_a_header_longer_than_the_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="header length of 9,223,372,036,854,775,807"):
        opened(tmp_path, (2**63 - 1).to_bytes(8, "little") + b"{}")


def test_a_huge_header_is_refused_without_parsing_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate((1 << 30) + 100)  # sparse: takes no room
    with pytest.raises(InvalidInput, match="header of at most 16,777,216 bytes"):
        SafetensorsFile.open(path)


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"PK\x03\x04 a zip file, not weights at all"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        opened(tmp_path, content)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "w": F32_PAIR}
    assert list(opened(tmp_path, safetensors_bytes(json.dumps(header).encode(), b"\0" * 8)).entries) == ["w"]


def test_a_run_past_the_tensors_end_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path, safetensors_bytes({"w": F32_PAIR}, b"\0" * 8))
    with pytest.raises(InvalidInput, match=r"found \[1, 3\)"):
        file.flat("w", 1, 2)
