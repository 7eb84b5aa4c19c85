"""The throughput benchmark measures a running product and holds its model against it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fine_tunes import FineTunes
from whole_product import Product

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark's module."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    before = set(sys.modules)
    import throughput

    yield throughput
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            del sys.modules[name]


def test_a_batch_is_timed_by_the_ledgers_record_and_compared_with_the_model(
    throughput: ModuleType,
    product: Product,
    fine_tune: FineTunes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    product.until_profiled()
    shutil.copytree(fine_tune("benign_replay"), tmp_path / "candidate")
    observed = throughput.batch(product, tmp_path, workers=1, versions=1, warm_ups=0)
    assert 3600 / observed.per_hour >= observed.stages["inspect"] + observed.stages["measure"]
    assert throughput.told([observed], 1, cores=2, tolerance=1e9) == 0
    assert "| 1 | " in capsys.readouterr().out
