"""A half-precision base measured in single precision: the same weights, and the dtype that was used is told."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gate.domain.checkpoint import Base
from gate.domain.evidence import ComputeDtype
from tasks.bench import Bench
from tasks.static_stage import inspect_folder
from tasks.zoo.staged_recipes import STAGED


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped base, saved in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    for file in STAGED.base_folder(Path()).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t.bfloat16() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def opened(half: Path, compute_dtype: ComputeDtype) -> Bench:
    attested = inspect_folder(half).checkpoint
    base = Base(name="half", digest=attested.digest, source=str(half), suite="staged", checkpoint=attested)
    return Bench.load(base, half, "cpu", compute_dtype)


def test_single_precision_holds_the_stored_weights_exactly(half: Path) -> None:
    bench = opened(half, ComputeDtype.FLOAT32)

    assert bench.provenance()["dtype"] == "float32"
    for name, tensor in bench.model.state_dict().items():
        if name in bench.weights.names():
            assert torch.equal(tensor, bench.weights.tensor(name).float())


def test_the_stored_dtype_is_used_where_no_other_is_asked_for(half: Path) -> None:
    assert opened(half, ComputeDtype.STORED).provenance()["dtype"] == "bfloat16"
