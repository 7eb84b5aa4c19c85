"""What the guard adds to a promotion: MLflow's own store beside the guarded one, in turns, in one process and one run.

``python benchmarks/guard.py [--calls 400]``. Each store sets a protected alias on an approved version; then the guarded
one refuses an unapproved version. Both stores are on SQLite files of their own, made alike. Exit status 1 where the
guarded calls' 95th percentile is not less than 5 ms above the unguarded ones'.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LIMIT_MS = 5.0
NAME = "assistant"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400)
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        found = measured(Path(folder), calls)
    for name, seconds in found.items():
        print(
            f"{name:40} p50 {percentile(seconds, 50):7.3f} ms   p95 {percentile(seconds, 95):7.3f} ms   n {len(seconds)}"
        )
    plain, guarded = found["unguarded, alias set"], found["guarded, alias set"]
    medians = percentile(guarded, 50) - percentile(plain, 50)
    tails = percentile(guarded, 95) - percentile(plain, 95)
    print(f"added: median {medians:.3f} ms, p95 {tails:.3f} ms (limit {LIMIT_MS:g} ms)")
    work = [percentile(found[f"{name}, processor time"], 95) for name in ("guarded, alias set", "unguarded, alias set")]
    print(f"added processor time: p95 {work[0] - work[1]:.3f} ms; unlike the above, other processes hardly disturb it")
    print(f"ratio of the medians {percentile(guarded, 50) / percentile(plain, 50):.3f}, load {os.getloadavg()[0]:.1f}")
    return 0 if tails < LIMIT_MS else 1


def measured(folder: Path, calls: int) -> Mapping[str, list[float]]:
    """Seconds of each call, by what was called."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    approve = approver(folder)
    from gate.registry_guard import guarded_store

    plain, guarded = (
        SqlAlchemyStore(f"sqlite:///{folder}/plain.db"),
        guarded_store(f"gate+sqlite:///{folder}/guarded.db"),
    )
    for store in (plain, guarded):
        store.create_registered_model(NAME)
        for source in ("s3://bucket/good", "s3://bucket/bad"):
            store.create_model_version(NAME, source)
        approve(store)
    acts: dict[str, Callable[[], object]] = {
        "unguarded, alias set": lambda: plain.set_registered_model_alias(NAME, "champion", "1"),
        "guarded, alias set": lambda: guarded.set_registered_model_alias(NAME, "champion", "1"),
        "guarded, alias refused": lambda: refused(guarded),
        "guard's check alone": lambda: guarded._check("benchmark", NAME, "1", "alias", "champion"),
    }
    found: dict[str, list[float]] = {f"{name}{kind}": [] for name in acts for kind in ("", ", processor time")}
    for number in range(calls + 20):
        for name, act in acts.items():
            begun, worked = time.perf_counter(), time.thread_time()
            act()
            if number >= 20:  # the first calls load what every later one finds in memory
                found[name].append(time.perf_counter() - begun)
                found[f"{name}, processor time"].append(time.thread_time() - worked)
    return found


def approver(folder: Path) -> Callable[[Any], None]:
    """A key that the guard trusts, and what gives version 1 of a store an approval signed with it."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from approvals import a_key, an_attestation
    from mlflow.entities.model_registry import ModelVersionTag

    from gate.domain.checkpoint import version_identity

    private, public = a_key(folder)
    os.environ["GATE_TRUSTED_KEYS_FILE"] = str(public)

    def approve(store: Any) -> None:
        row = store.get_model_version(NAME, "1")
        identity = version_identity(NAME, "1", row.creation_timestamp, row.source)
        store.set_model_version_tag(
            NAME, "1", ModelVersionTag("gate.vsa", json.dumps(json.loads(an_attestation(private, identity))))
        )

    return approve


def refused(store: Any) -> None:
    """An attempt that must fail; a benchmark of a guard that lets it pass would be worth nothing."""
    from mlflow.exceptions import MlflowException

    try:
        store.set_registered_model_alias(NAME, "champion", "2")
    except MlflowException:
        return
    raise SystemExit("the guard let an unapproved version pass")


def percentile(seconds: list[float], of: int) -> float:
    """A percentile in milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=100)[of - 1]


if __name__ == "__main__":
    raise SystemExit(main())
