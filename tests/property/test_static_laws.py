"""Laws of the static stage: the streamed numbers are the naive ones, however the reading is cut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_folders import open_weights, sharded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tasks import sweep
from tasks.measurements.displacement import Displacement
from tasks.sweep import Gradients, runs, sweep_model

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

shapes = st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=3).map(tuple), min_size=1, max_size=5)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws")


def saved(folder: Path, tensors: dict[str, torch.Tensor], parts: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(tensors, folder / "model.safetensors")
    return sharded(folder, parts) if parts > 1 else folder


def swept(base: Path, candidate: Path) -> Displacement:
    with open_weights(base) as ours, open_weights(candidate) as theirs:
        return sweep_model(ours, theirs, Gradients(), lambda _: None).displacement


@QUICK
@given(shapes=shapes, ours=dtypes, theirs=dtypes, run=st.integers(1, 50), parts=st.integers(1, 3), seed=st.integers(0))
def test_streaming_gives_the_naive_numbers(
    folders: Path,
    shapes: list[tuple[int, ...]],
    ours: torch.dtype,
    theirs: torch.dtype,
    run: int,
    parts: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    base = {f"t{n}": torch.randn(s, generator=generator).to(ours) for n, s in enumerate(shapes)}
    candidate = {n: (t.float() + torch.randn(t.shape, generator=generator).round()).to(theirs) for n, t in base.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "RUN", run)
        found = swept(saved(folders / "b", base, 1), saved(folders / "c", candidate, min(parts, len(shapes))))
    a, b = (np.concatenate([t[n].double().numpy().ravel() for n in sorted(base)]) for t in (base, candidate))
    delta = b - a
    # Two 16-bit sides are summed in float32 rows, everything else in float64.
    near = 1e-6 if max(ours.itemsize, theirs.itemsize) == 2 else 1e-9
    assert found.norm == pytest.approx(np.linalg.norm(delta), rel=near, abs=1e-12)
    assert found.base_norm == pytest.approx(np.linalg.norm(a), rel=near)
    assert found.parameters == a.size
    assert found.changed_fraction == pytest.approx(np.count_nonzero(delta) / a.size if a.size else 0.0)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_numbers_do_not_depend_on_the_threads(folders: Path, threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {f"t{n}": torch.randn(999, generator=generator) for n in range(20)}
    paths = saved(folders / "b", base, 1), saved(folders / "c", {n: t * 1.01 for n, t in base.items()}, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = swept(*paths)
        torch.set_num_threads(threads)
        assert swept(*paths) == alone
    finally:
        torch.set_num_threads(before)


@given(length=st.integers(0, 10_000), run=st.integers(1, 300))
def test_runs_tile_any_length(length: int, run: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "RUN", run)
        found = list(runs(length))
    assert [n for first, count in found for n in range(first, first + count)] == list(range(length))
    assert all(0 < count <= run for _, count in found)
