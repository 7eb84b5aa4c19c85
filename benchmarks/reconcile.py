"""How soon a promotion past the guard is seen in a large registry, and what a sweep asks for: one run, real parts.

``python benchmarks/reconcile.py [--versions 10000] [--models 1000] [--rivals 0]``. A real MLflow server on SQLite with as
many versions, a tenth of them promoted, and a ledger that approved those. Each bypass is made at twelve places all over the
registry, and counts as seen when the last of them is. The dispatcher's sweeps run back to back; the time to detection adds
the waits between them at the default cadence. ``--rivals``: so many other processes that never rest; one for each core
makes the machine about half as fast. Exit status 1 where a detection takes longer than a minute.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
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
PLACES = 12
OUTCOMES = (Outcome.BLOCKED, Outcome.APPROVED)
"""Of each model, the first version is approved, and the others are not."""
AT_MS = 1_700_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--rivals", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reconcile-") as folder:
        stand = GuardedStand(Path(folder))
        try:
            fill(stand, given.models, given.versions // given.models)
            stand.clock = time.time  # sweeps keep to their share of real time
            stand.dispatcher = stand.a_dispatcher()
            with rivals(given.rivals):
                return measure(stand, given.models, given.versions // given.models)
        finally:
            stand.close()


@contextmanager
def rivals(number: int) -> Iterator[None]:
    """So many processes that take what processor time they get."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def fill(stand: GuardedStand, models: int, each: int) -> None:
    """Registered models with versions, the first of each approved and champion, written straight into both databases."""
    filler, policy = stand.attestation("models:/filler/1"), stand.policies.policies[0]
    rows: dict[str, list[dict[str, Any]]] = {"models": [], "versions": [], "tags": [], "aliases": []}
    evaluations, verdicts = [], []
    for model in range(models):
        name = f"team-{model:05}"
        rows["models"].append({"name": name, "at": AT_MS})
        for number in range(1, each + 1):
            version = ModelVersion(
                name=name,
                version=str(number),
                created_ms=made_at(model, each, number),
                source=f"s3://b/{name}/{number}",
            )
            # Only an approval is read again: by the guard, when the version gets its place back.
            text = stand.attestation(version.identity) if number == 1 else filler
            rows["versions"].append(
                {"name": name, "version": number, "at": version.created_ms, "source": version.source}
            )
            rows["tags"] += [
                {"name": name, "version": number, "key": key, "value": value}
                for key, value in (("gate.vsa", text), ("gate.verdict", OUTCOMES[number == 1].value))
            ]
            request = EvaluationRequest.of(version, policy.name, policy.digest)
            evaluations.append(an_evaluation(request, OUTCOMES[number == 1]))
            verdicts.append(a_kept_verdict(request, json.loads(text), OUTCOMES[number == 1]))
        rows["aliases"].append({"name": name, "alias": "champion", "version": 1})
    with stand.unguarded.engine.begin() as connection:
        for statement, key in STATEMENTS.items():
            connection.execute(sa.text(statement), rows[key])
    with stand.ledger._database.engine.begin() as connection:
        connection.execute(sa.insert(evaluation), evaluations)
        connection.execute(sa.insert(verdict), verdicts)


def made_at(model: int, each: int, number: int) -> int:
    """When a version was made, in milliseconds: one after the other."""
    return AT_MS + model * each + number


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


def measure(stand: GuardedStand, models: int, each: int) -> int:
    """Sweeps until all is known, then each bypass."""
    with counted() as calls:
        for number in range(3):
            seconds = sweep(stand)
            say(f"sweep {number + 1} from nothing known: {seconds:6.2f} s, calls {dict(calls)}")
            calls.clear()
        steady = []
        for _ in range(4):
            steady.append((sweep(stand), sum(calls.values())))
            calls.clear()
    say(
        f"a sweep with nothing changed: median {statistics.median(s for s, _ in steady):.2f} s, "
        f"{min(n for _, n in steady)} to {max(n for _, n in steady)} calls to MLflow"
    )
    places = [
        Place(f"team-{model:05}", made_at(model, each, 1)) for model in range(0, models, max(1, models // PLACES))
    ]
    worst = max(detection(stand, name, bypass, places[:PLACES]) for name, bypass in BYPASSES.items())
    say(f"slowest detection: {worst:.1f} s (limit {LIMIT_S:g} s), load {os.getloadavg()[0]:.1f}")
    return 0 if worst <= LIMIT_S else 1


def detection(stand: GuardedStand, name: str, bypass: "Bypass", places: Sequence["Place"]) -> float:
    """Seconds from the bypass until the last of its places was told of, at the default cadence, at worst."""
    for place in places:
        stand.sql(bypass.statement, name=place.name, at=place.made_at)
    waiting = {stand.registry.version(place.name, bypass.version).identity for place in places}
    longest, sweeps = 0.0, 0
    while waiting := {identity for identity in waiting if not stand.audited(identity)}:
        if sweeps == SWEEPS_AT_MOST:
            say(f"{name}: {len(waiting)} not seen in {sweeps} sweeps")
            return float("inf")
        longest = max(longest, sweep(stand))
        sweeps += 1
    after = sweeps * max(CADENCE_S, longest) + longest
    say(
        f"{name}: {len(places)} of them seen in {sweeps} sweeps of at most {longest:.1f} s, at most {after:.1f} s after "
        f"they happened at {CADENCE_S:g} s between sweeps"
    )
    return after


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
def counted() -> Iterator[Counter[str]]:
    """Counts the calls to MLflow by the end of their path."""
    calls: Counter[str] = Counter()
    request = requests.Session.request

    def counting(session: requests.Session, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        calls["/".join(url.split("/")[-2:])] += 1
        return request(session, method, url, *args, **kwargs)

    # The one place that every call of MLflow's client comes through; put back below.
    requests.Session.request = counting
    try:
        yield calls
    finally:
        requests.Session.request = request


@dataclass(frozen=True, slots=True)
class Place:
    """A registered model that is tampered with, and when its first version was made."""

    name: str
    made_at: int


@dataclass(frozen=True, slots=True)
class Bypass:
    """A statement in MLflow's database, and the version that the audit log must then tell of."""

    statement: str
    version: str = "2"


BYPASSES = {
    "alias moved in the database": Bypass(
        "update registered_model_aliases set version = 2 where name = :name and alias = 'champion'"
    ),
    "stage changed in the database": Bypass(
        "update model_versions set current_stage = 'Production' where name = :name and version = 3", "3"
    ),
    "version inserted in the database, back-dated": Bypass(
        "insert into model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source, "
        "storage_location, status) values ('default', :name, 99, :at, :at, 'None', 's3://evil', 's3://evil', 'READY')",
        "99",
    ),
    "source of a promoted version changed in the database": Bypass(
        "update model_versions set source = 's3://evil' where name = :name and version = 1", "1"
    ),
}


if __name__ == "__main__":
    raise SystemExit(main())
