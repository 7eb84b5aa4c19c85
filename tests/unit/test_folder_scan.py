"""Unsafe files are known by their bytes as well as by their names, and are never opened the dangerous way."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gate.domain.evidence import DefectCode
from tasks.folder_scan import scan, unmeasured_weights


class Exploit:
    """Leaves a mark when it is unpickled."""

    mark: Path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def found(folder: Path) -> dict[str, DefectCode]:
    return {d.message.split(":")[0]: d.code for d in scan(folder).defects}


@pytest.mark.parametrize("protocol", range(6))
def test_a_renamed_pickle_of_any_protocol_is_found_and_not_run(tmp_path: Path, protocol: int) -> None:
    exploit = Exploit()
    exploit.mark = tmp_path / "run"
    (tmp_path / "NOTICE.txt").write_bytes(pickle.dumps(exploit, protocol))
    assert found(tmp_path) == {"NOTICE.txt": DefectCode.UNSAFE_FILE}
    assert not exploit.mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "python_model.pkl", "model.pth", "weights.PT", "last.ckpt"])
def test_a_pickles_name_is_enough(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / name)
    assert found(tmp_path) == {name: DefectCode.UNSAFE_FILE}


def test_the_trainers_leftovers_are_pickles_that_can_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").write_bytes(pickle.dumps({"lr": 1e-5}))
    (defect,) = scan(tmp_path).defects
    assert defect.code is DefectCode.UNSAFE_FILE
    assert "delete it" in defect.message


def test_an_array_of_objects_is_a_pickle_and_an_array_of_numbers_is_not(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    assert found(tmp_path) == {"objects.npy": DefectCode.UNSAFE_FILE}


def test_archives_are_found_by_their_bytes_and_never_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.txt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * (64 << 20))
    (tmp_path / "vocab").write_bytes(gzip.compress(b"\0" * 1000))
    with tarfile.open(tmp_path / "data", "w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    (tmp_path / "named.7z").write_bytes(b"whatever")
    assert found(tmp_path) == dict.fromkeys(["data", "named.7z", "notes.txt", "vocab"], DefectCode.ARCHIVE_FILE)
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 1 << 20


def test_code_and_programs_are_found(tmp_path: Path) -> None:
    (tmp_path / "modeling_evil.py").write_text("import os\n")
    (tmp_path / "start").write_text("#!/bin/sh\nrm -rf /\n")
    (tmp_path / "kernel.txt").write_bytes(b"\x7fELF\x02\x01")
    assert found(tmp_path) == {
        "modeling_evil.py": DefectCode.CUSTOM_CODE,
        "start": DefectCode.CUSTOM_CODE,
        "kernel.txt": DefectCode.UNSAFE_FILE,
    }


def test_links_and_pipes_are_refused_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(tmp_path / "secret" / "key")
    (folder / "inner").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    assert found(folder) == dict.fromkeys(["config.json", "inner", "pipe"], DefectCode.UNSAFE_FILE)
    assert scan(folder).files == ()


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.json")).write_text("{}")
    (tmp_path / "b\n.json").write_text("{}")
    result = scan(tmp_path)
    assert [d.code for d in result.defects] == [DefectCode.UNSAFE_FILE] * 2
    assert result.files == ()


def test_what_mlflow_and_the_hub_write_normally_is_no_defect(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("click==8\ntorch\n.\n")
    (tmp_path / "conda.yaml").write_text("channels:\n- conda-forge\n")
    (tmp_path / "README.md").write_text("# A model\n\nconda install x.\n")
    (tmp_path / "LICENSE.txt").write_text("I hereby. (c) 2026\n")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "empty").touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "trainer_state.json").write_text("{}")
    result = scan(tmp_path)
    assert result.defects == ()
    assert len(result.files) == 8
    assert "deep/er/trainer_state.json" in result.files


def test_weights_that_nothing_was_compared_with_are_reported() -> None:
    files = ["model.safetensors", "model.gguf", "onnx/decoder.onnx", "config.json"]
    named = [d.message.split(":")[0] for d in unmeasured_weights(files, {"model.safetensors"})]
    assert named == ["model.gguf", "onnx/decoder.onnx"]
