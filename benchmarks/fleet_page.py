"""How long the fleet's page takes with ten thousand evaluations, and how heavy it is: ``python benchmarks/fleet_page.py``.

The ledger is a real one (SQLite), the application the real one, asked over HTTP on loopback; the figure is what the
server itself took (``Server-Timing``). Exit status 1 where the page is slower or heavier than it may be.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn

from gate.adapters.database import Database
from gate.adapters.ledger_tables import evaluation, job
from gate.adapters.metrics import Metrics
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.dashboard.fleet import closed
from gate.api.door import Door
from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key

LIMIT_MS, LIMIT_BYTES = 200.0, 300_000
NOW = 1_795_400_000.0
OUTCOMES = ("approved", "approved", "approved", "blocked", "needs_review", "error", None)
REASON = (
    "Safety fell from 1.00 to 0.42 (change −0.58, 99 % interval −0.70 to −0.43; limit −0.10); keep what the base can do"
)


def rows(count: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Evaluations as the ledger keeps them, with the jobs of those that have not ended."""
    draw = random.Random(7)
    for number in range(count):
        name = f"team-{number % 97}/assistant-{number % 1013}"
        version = ModelVersion(name=name, version=str(number), created_ms=number, source=f"runs:/{number}/model")
        request = EvaluationRequest.of(version, "default", "d" * 64)
        outcome, at = OUTCOMES[number % len(OUTCOMES)], NOW - 60.0 * number
        common = {"key": request.key, "name": name, "request": request.model_dump_json(), "outcome": outcome}
        known = {"created_at": at, "updated_at": at + 30, "reason": REASON if outcome else None}
        numbers = {"basin_position": draw.random(), "worst_change": -draw.random(), "base_digest": "b" * 64}
        jobs = [_job(inspect_key(request.key), at), _job(judge_key(request.key), at)] if outcome is None else []
        yield common | known | (numbers if outcome else dict.fromkeys(numbers)), jobs


def _job(key: str, at: float) -> dict[str, Any]:
    kind = key.partition(":")[0]
    times = {"not_before": at, "queued_at": at, "rung_at": at, "created_at": at}
    return {"key": key, "kind": kind, "queue": "cpu", "payload": {}, "state": "queued", **times, "epoch": 0, "attempts": 0, "outages": 0}  # fmt: skip


def filled(folder: Path, count: int) -> SqlLedger:
    """A ledger of so many evaluations."""
    url = f"sqlite:///{folder}/ledger.db"
    migrate(url)
    database = Database(url)
    made = list(rows(count))

    def insert(c: sa.Connection) -> None:
        c.execute(sa.insert(evaluation), [each for each, _ in made])
        c.execute(sa.insert(job), [one for _, jobs in made for one in jobs])

    database.write(insert)
    database.close()
    return SqlLedger(url)


@contextmanager
def served(ledger: SqlLedger) -> Iterator[str]:
    """The application over the ledger, on loopback."""
    door = Door(
        ledger=ledger,
        registry=None,  # the fleet's page never asks it
        policies=load_policies(),
        secrets=("unused",),
        clock=lambda: NOW,
        metrics=Metrics(),
        broker=lambda: None,
    )
    server = uvicorn.Server(uvicorn.Config(create_app(door, Access(None)), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def asked(url: str) -> tuple[float, int]:
    """Milliseconds the server took for a page, and its bytes."""
    with urllib.request.urlopen(url) as reply:
        body = reply.read()
        return float(reply.headers["Server-Timing"].split("dur=")[1]), len(body)


def main() -> int:
    """Prints a line for each way of looking at the fleet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100)
    given = parser.parse_args()
    deep = closed([NOW - 60.0 * given.evaluations * 0.9, "0"])
    pages = {
        "newest": {},
        "deep in it": {"after": deep},
        "one outcome": {"outcome": "blocked"},
        "in progress": {"outcome": "open"},
        "by name": {"sort": "name"},
        "farthest": {"sort": "farthest"},
        "searched": {"text": "assistant-77"},
    }
    held = True
    print(f"{given.evaluations} evaluations, {given.requests} requests each")
    print(f"{'page':<14}{'median ms':>10}{'p95 ms':>10}{'kB':>8}")
    with tempfile.TemporaryDirectory() as folder, served(filled(Path(folder), given.evaluations)) as url:
        for name, query in pages.items():
            address = f"{url}/?{urllib.parse.urlencode(query)}"
            asked(address)
            found = [asked(address) for _ in range(given.requests)]
            times, size = sorted(ms for ms, _ in found), max(size for _, size in found)
            p95 = statistics.quantiles(times, n=20)[-1]
            held = held and p95 < LIMIT_MS and size < LIMIT_BYTES
            print(f"{name:<14}{statistics.median(times):>10.1f}{p95:>10.1f}{size / 1000:>8.0f}")
    print(f"limits: p95 {LIMIT_MS:.0f} ms, {LIMIT_BYTES / 1000:.0f} kB: {'held' if held else 'NOT HELD'}")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
