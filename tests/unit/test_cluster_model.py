"""The model behind the sizing table agrees with what can be worked out by hand."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The model's module, as the scripts beside it import it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import cluster_model

    yield cluster_model
    del sys.modules["cluster_model"]


def took(model: ModuleType, workers: int, versions: int, *, cores: float = float("inf"), load_s: float = 0.0) -> float:
    """Seconds until a batch registered at once is measured: inspected in 1 s each, measured in 4 s each."""
    kind = model.Kind("7B", 1.0, 4.0, load_s)
    cluster = model.Cluster([model.Worker("cpu"), *(model.Worker("gpu") for _ in range(workers))], cores)
    batch = [model.Version(0.0, "team", kind) for _ in range(versions)]
    cluster.simulate(batch)
    assert cluster.busy_s == pytest.approx(sum(run[1] - run[0] for run in cluster.past["gpu"]))
    return float(max(version.measured_at for version in batch))


@pytest.mark.parametrize(
    ("workers", "versions", "seconds"),
    [(1, 1, 5.0), (1, 8, 1 + 8 * 4.0), (2, 8, 2 + 4 * 4.0), (4, 8, 4 + 2 * 4.0), (8, 8, 8 + 4.0)],
)
def test_a_batch_takes_as_long_as_its_slowest_queue(
    model: ModuleType, workers: int, versions: int, seconds: float
) -> None:
    assert took(model, workers, versions) == pytest.approx(seconds)


def test_jobs_that_share_one_core_take_as_long_as_all_their_work(model: ModuleType) -> None:
    assert took(model, 4, 8, cores=1) == pytest.approx(8 * (1 + 4.0))


def test_a_base_is_loaded_once_by_each_worker_and_again_after_another_one(model: ModuleType) -> None:
    assert took(model, 1, 3, load_s=10.0) == pytest.approx(1 + 10 + 3 * 4.0)
    kinds = [model.Kind(name, 1.0, 4.0, 10.0) for name in ("7B", "70B")]
    cluster = model.Cluster([model.Worker("cpu"), model.Worker("gpu")])
    batch = [model.Version(float(n), "team", kinds[n % 2]) for n in range(4)]
    cluster.simulate(batch)
    assert max(version.measured_at for version in batch) == pytest.approx(1 + 4 * 14.0)


def test_a_worker_twice_as_fast_takes_half_as_long(model: ModuleType) -> None:
    cluster = model.Cluster([model.Worker("cpu"), model.Worker("gpu", speed=2.0)])
    version = model.Version(0.0, "team", model.Kind("7B", 1.0, 4.0))
    cluster.simulate([version])
    assert version.took_s == pytest.approx(3.0)


def test_a_small_team_does_not_wait_for_another_ones_sweep(model: ModuleType) -> None:
    kind = model.Kind("7B", 1.0, 4.0)
    flood = [model.Version(0.0, "sweep", kind) for _ in range(100)]
    small = model.Version(50.0, "small", kind)
    cluster = model.Cluster([model.Worker("cpu"), model.Worker("gpu")])
    cluster.simulate([*flood, small])
    assert small.took_s <= 1 + 1 + 4 + 4


def test_working_days_hold_what_was_asked_for_and_come_out_alike_from_one_seed(model: ModuleType) -> None:
    kinds = [(model.Kind("7B", 1.0, 4.0), 0.9), (model.Kind("70B", 1.0, 4.0), 0.1)]
    one, again = (list(model.working_days(1000, 2, kinds, 5, seed=3)) for _ in range(2))
    assert one == again
    assert len(one) == 2000
    assert 0.05 < sum(version.kind.name == "70B" for version in one) / 2000 < 0.15
    assert 0.7 < sum(9 <= version.at / 3600 % 24 < 17 for version in one) / 2000 < 0.85


def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(model: ModuleType) -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [model.quantile(values, part) for part in (0.01, 0.5, 0.95, 1.0)] == [1.0, 50.0, 95.0, 100.0]


def test_a_version_is_measured_on_its_own_queue_and_by_those_that_serve_it_beside_theirs(model: ModuleType) -> None:
    small, large = (model.Kind(name, 1.0, 4.0, queue=f"gpu-{name}") for name in ("small", "large"))

    def ends(*beside: str) -> list[float]:
        workers = [model.Worker("cpu"), model.Worker("gpu-small"), model.Worker("gpu-large", beside=beside)]
        batch = [model.Version(0.0, "team", kind) for kind in (large, small, small, small, small)]
        model.Cluster(workers).simulate(batch)
        return [version.measured_at for version in batch]

    assert max(ends()) == pytest.approx(2 + 4 * 4.0)
    assert max(ends("gpu-small")) == pytest.approx(1 + 3 * 4.0)
    assert ends()[0] == ends("gpu-small")[0] == pytest.approx(1 + 4.0)


def test_what_begins_on_a_device_that_does_not_hold_it_is_counted(model: ModuleType) -> None:
    kinds = [model.Kind(name, 1.0, 4.0, need_gb=need) for name, need in (("7B", 43.0), ("70B", 421.0))]
    cluster = model.Cluster([model.Worker("cpu"), model.Worker("gpu", memory_gb=48)])
    cluster.simulate([model.Version(0.0, "team", kind) for kind in kinds])

    assert cluster.too_small == 1
