"""How soon a promotion past the guard is seen in a large registry, and what a sweep asks for: one run, real parts.

``python benchmarks/reconcile.py [--versions 10000] [--models 1000]``. A real MLflow server on SQLite with as many versions,
a tenth of them promoted, and a ledger that approved those. The dispatcher's sweeps run back to back; the time to
detection adds the waits between them at the default cadence. Exit status 1 where one takes longer than a minute.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from builders import a_verdict
from guarded_stand import GuardedStand

from gate.adapters.ledger_tables import evaluation, verdict
from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.verdict import Outcome
from gate.settings import Settings

LIMIT_S = 60.0
CADENCE_S = float(Settings.model_fields["reconcile_every_s"].default)
SWEEPS_AT_MOST = 12
OUTCOMES = (Outcome.BLOCKED, Outcome.APPROVED)
"""Of each model, the first version is approved, and the others are not."""
AT_MS = 1_700_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reconcile-") as folder:
        stand = GuardedStand(Path(folder))
        try:
            fill(stand, given.models, given.versions // given.models)
            stand.clock = time.time  # sweeps keep to their share of real time
            stand.dispatcher = stand.a_dispatcher()
            return measure(stand)
        finally:
            stand.close()


def fill(stand: GuardedStand, models: int, each: int) -> None:
    """Registered models with versions, the first of each approved and champion, written straight into both databases."""
    envelope = json.loads(stand.attestation("models:/filler/1"))
    text, policy = json.dumps(envelope, separators=(",", ":"), sort_keys=True), stand.policies.policies[0]
    rows: dict[str, list[dict[str, Any]]] = {"models": [], "versions": [], "tags": [], "aliases": []}
    evaluations, verdicts = [], []
    for model in range(models):
        name = f"team-{model:05}"
        rows["models"].append({"name": name, "at": AT_MS})
        for number in range(1, each + 1):
            version = ModelVersion(
                name=name,
                version=str(number),
                created_ms=AT_MS + model * each + number,
                source=f"s3://b/{name}/{number}",
            )
            rows["versions"].append(
                {"name": name, "version": number, "at": version.created_ms, "source": version.source}
            )
            rows["tags"] += [
                {"name": name, "version": number, "key": key, "value": value}
                for key, value in (("gate.vsa", text), ("gate.verdict", OUTCOMES[number == 1].value))
            ]
            request = EvaluationRequest.of(version, policy.name, policy.digest)
            evaluations.append(an_evaluation(request, OUTCOMES[number == 1]))
            verdicts.append(a_kept_verdict(request, envelope, OUTCOMES[number == 1]))
        rows["aliases"].append({"name": name, "alias": "champion", "version": 1})
    with stand.unguarded.engine.begin() as connection:
        for statement, key in STATEMENTS.items():
            connection.execute(sa.text(statement), rows[key])
    with stand.ledger._database.engine.begin() as connection:
        connection.execute(sa.insert(evaluation), evaluations)
        connection.execute(sa.insert(verdict), verdicts)


STATEMENTS = {
    "insert into registered_models (workspace, name, creation_time, last_updated_time) "
    "values ('default', :name, :at, :at)": "models",
    "insert into model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source, "
    "storage_location, status) values ('default', :name, :version, :at, :at, 'None', :source, :source, 'READY')": "versions",
    "insert into model_version_tags (workspace, name, version, key, value) "
    "values ('default', :name, :version, :key, :value)": "tags",
    "insert into registered_model_aliases (workspace, name, alias, version) "
    "values ('default', :name, :alias, :version)": "aliases",
}


def an_evaluation(request: EvaluationRequest, outcome: Outcome) -> dict[str, Any]:
    """The ledger's row of an evaluation that ended, and was written to the registry, long ago."""
    at = AT_MS / 1000
    row = {"key": request.key, "name": request.version.name, "request": request.model_dump_json()}
    return row | {"outcome": outcome.value, "reason": "So.", "created_at": at, "updated_at": at, "projected_at": at}


def a_kept_verdict(request: EvaluationRequest, envelope: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The ledger's row of its verdict, in force."""

    until = int(time.time()) + 30 * 86_400
    body = a_verdict(subject=request.version.identity, outcome=outcome, expires_at=until)
    return {
        "key": request.key,
        "body": body.model_dump_json(),
        "envelope": json.dumps({"summary": envelope}),
        "saved_at": AT_MS / 1000,
    }


def measure(stand: GuardedStand) -> int:
    """Sweeps until all is known, then each bypass."""
    with counted(stand) as calls:
        for number in range(2):
            seconds = sweep(stand)
            say(f"sweep {number + 1} from nothing known: {seconds:6.2f} s, calls {dict(calls)}")
            calls.clear()
        steady = []
        for _ in range(2):
            steady.append((sweep(stand), sum(calls.values())))
            calls.clear()
    say(
        f"a sweep with nothing changed: median {statistics.median(s for s, _ in steady):.2f} s, "
        f"{min(n for _, n in steady)} to {max(n for _, n in steady)} calls to MLflow"
    )
    worst = 0.0
    for name, (act, seen) in BYPASSES.items():
        act(stand)
        begun, sweeps = time.monotonic(), 0
        while not seen(stand):
            if sweeps == SWEEPS_AT_MOST:
                say(f"{name}: not seen in {sweeps} sweeps")
                return 1
            sweep(stand)
            sweeps += 1
        took = time.monotonic() - begun
        longest = sweeps * CADENCE_S + took / sweeps
        worst = max(worst, longest)
        say(
            f"{name}: seen in sweep {sweeps}, at most {longest:.1f} s after it happened at {CADENCE_S:g} s between sweeps"
        )
    say(f"slowest detection: {worst:.1f} s (limit {LIMIT_S:g} s)")
    return 0 if worst <= LIMIT_S else 1


def say(line: str) -> None:
    """Prints at once, so that a run cut short has said what it found."""
    print(line, flush=True)


def sweep(stand: GuardedStand) -> float:
    """One sweep of the reconciler; its seconds."""
    begun = time.monotonic()
    if not stand.dispatcher._reconciler.reconcile():
        raise SystemExit("a sweep could not be done; see the log above")
    return time.monotonic() - begun


@contextmanager
def counted(stand: GuardedStand) -> Iterator[Counter[str]]:
    """Counts the registry's calls to MLflow by their name."""
    calls: Counter[str] = Counter()
    store = stand.registry._store
    call = store._call_endpoint

    def counting(api: Any, *args: Any, **kwargs: Any) -> Any:
        calls[api.__name__] += 1
        return call(api, *args, **kwargs)

    store._call_endpoint = counting
    try:
        yield calls
    finally:
        del store._call_endpoint


def audited(stand: GuardedStand, identity: str) -> bool:
    return bool(stand.audited(identity))


def identity_of(stand: GuardedStand, name: str, version: str) -> str:
    return stand.registry.version(name, version).identity


def bypass(
    name: str, statement: str, version: str = "2"
) -> tuple[Callable[[GuardedStand], object], Callable[[GuardedStand], bool]]:
    return (
        lambda stand: stand.sql(statement, name=name),
        lambda stand: audited(stand, identity_of(stand, name, version)),
    )


BYPASSES = {
    "alias moved in the database": bypass(
        "team-00070", "update registered_model_aliases set version = 2 where name = :name"
    ),
    "stage changed in the database": bypass(
        "team-00090", "update model_versions set current_stage = 'Production' where name = :name and version = 2"
    ),
    "source of a promoted version changed in the database": bypass(
        "team-00033", "update model_versions set source = 's3://evil' where name = :name and version = 1", "1"
    ),
    "version inserted in the database, back-dated": bypass(
        "team-00050",
        "insert into model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source, "
        "storage_location, status) values ('default', :name, 99, 1, 1, 'None', 's3://evil', 's3://evil', 'READY')",
        "99",
    ),
}


if __name__ == "__main__":
    raise SystemExit(main())
