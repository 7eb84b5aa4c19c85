"""Evaluations per hour against 1, 2 and 4 GPU-queue workers on this machine, and whether the cluster's model says the same.

``python benchmarks/throughput.py [--versions 8] [--workers 1 2 4]``. The whole embedded product; real fine-tunes of the
staged base, each with bytes of its own, so that each is measured. Stage seconds come from the ledger's record of the
run with one worker; the model is given nothing else but the number of cores. Does not begin while the machine is busy,
unless ``--any-load``. Exit status 1 where the model is off by more than the tolerance.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "benchmarks"))

import torch
from cluster_model import Cluster, Kind, Version, Worker
from whole_product import BASE_REFERENCE, STAGED, Product, Registered

from gate.adapters.ledger_tables import job_run
from gate.domain.jobs import inspect_key, measure_key
from tasks.zoo import recipes

MOST_LOAD = 0.5
"""Load average over one minute, per core, up to which times mean something."""


@dataclass(frozen=True)
class Observed:
    """One batch: evaluations per hour from the first registration to the last measurement, and mean seconds by stage."""

    workers: int
    per_hour: float
    stages: Mapping[str, float]
    load: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--any-load", action="store_true")
    parser.add_argument("--tolerance", type=float, default=0.3)
    given = parser.parse_args()
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    print(f"{cores} cores, load {load:.2f} before", flush=True)
    if load > MOST_LOAD * cores and not given.any_load:
        print(f"expected a load of at most {MOST_LOAD * cores:.1f}, found {load:.2f}: wait, or give --any-load")
        return 2
    with tempfile.TemporaryDirectory(prefix="throughput-") as room:
        observed = measured(Path(room), sorted(given.workers), given.versions)
    return told(observed, given.versions, cores, given.tolerance)


def measured(room: Path, counts: Sequence[int], versions: int) -> list[Observed]:
    """Each number of workers in turn, on one running product."""
    torch.set_num_threads(1)
    recipes.make("staged", "benign_replay", STAGED, room / "candidate", base_reference=BASE_REFERENCE, seed=7)
    (room / "product").mkdir()
    product = Product(room / "product")
    try:
        product.onboard()
        product.until_profiled()
        return [batch(product, room, count, versions) for count in counts]
    finally:
        product.close()


def batch(product: Product, room: Path, workers: int, versions: int, warm_ups: int = 2) -> Observed:
    """Bring the workers to that number, let each load the base by so many versions, then register those that count."""
    for number in range(len([name for name in product.stack.processes if name.startswith("gpu-worker")]), workers):
        product.stack.launch(replace(product.stack.service("gpu-worker"), name=f"gpu-worker-{number + 1}"))
    for name in [name for name in product.stack.processes if name.startswith("gpu-worker")]:
        product.until(lambda name=name: " ready." in product.stack.log_tail(name, 1000), f"{name} at work")
    register(product, room, f"warm-up {workers}", warm_ups * workers)
    asked = register(product, room, f"batch {workers}", versions)
    rows = [product.row(version) for version in asked]
    runs = {run.job: run for run in product.select(job_run) if run.outcome == "done"}
    stages = {
        "inspect": [runs[inspect_key(row.request.key)] for row in rows],
        "measure": [runs[measure_key(row.evidence_key)] for row in rows],
    }
    begun = min(row.created_at for row in rows)
    ended = max(run.ended_at for run in stages["measure"])
    seconds = {name: statistics.fmean(run.ended_at - run.begun_at for run in found) for name, found in stages.items()}
    return Observed(workers, 3600 * versions / (ended - begun), seconds, os.getloadavg()[0])


def register(product: Product, room: Path, name: str, versions: int) -> list[Registered]:
    """Register so many versions with bytes of their own, and wait for their verdicts."""
    asked = []
    for number in range(versions):
        folder = room / f"{name} {number}"
        shutil.copytree(room / "candidate", folder)
        (folder / "NOTES.md").write_text(f"{name} {number}\n")
        asked.append(product.register(name, folder, base=BASE_REFERENCE))
    product.until_projected(asked)
    return asked


def predicted(workers: int, versions: int, kind: Kind, cores: int) -> float:
    """Evaluations per hour by the model, of a batch registered at once."""
    cluster = Cluster([Worker("cpu"), *(Worker("gpu", warm=kind.name) for _ in range(workers))], cores)
    batch = [Version(0.0, "team", kind) for _ in range(versions)]
    cluster.simulate(batch)
    return 3600 * versions / max(version.measured_at for version in batch)


def told(observed: Sequence[Observed], versions: int, cores: int, tolerance: float) -> int:
    """The table; the status says whether the model holds."""
    one = observed[0]
    kind = Kind("staged", one.stages["inspect"], one.stages["measure"])
    print(f"stage seconds with {one.workers} worker: inspect {kind.inspect_s:.2f}, measure {kind.measure_s:.2f}\n")
    print(
        "| workers | evaluations per hour | ratio to one worker | by the model | off by | inspect s | measure s | load after |"
    )
    print("|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for each in observed:
        model = predicted(each.workers, versions, kind, cores)
        off = model / each.per_hour - 1
        worst = max(worst, abs(off))
        print(
            f"| {each.workers} | {each.per_hour:.0f} | {each.per_hour / one.per_hour:.2f} | {model:.0f} | {off:+.0%} | "
            f"{each.stages['inspect']:.2f} | {each.stages['measure']:.2f} | {each.load:.1f} |"
        )
    print(f"\nlargest difference {worst:.0%} (tolerance {tolerance:.0%})")
    return 0 if worst <= tolerance else 1


if __name__ == "__main__":
    raise SystemExit(main())
