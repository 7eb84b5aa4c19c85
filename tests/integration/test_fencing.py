"""Several processes, dropped jobs and workers that outlive their lease: each job is still written exactly once."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import rival_worker

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.records import JobRequest

KEYS = [f"job-{n}" for n in range(40)]
RIVALS = {"one": "sluggish", "two": "hasty", "three": "hasty"}


def test_each_job_is_written_once_by_one_holder(database_url: str) -> None:
    migrate(database_url)
    ledger = SqlLedger(database_url)
    ledger.enqueue([JobRequest(key, "measure", "gpu") for key in KEYS], 0.0)
    told = [report for report in fought(database_url) if report]
    claims = [tuple(claim) for report in told for claim in report["claims"]]
    assert len(set(claims)) == len(claims)
    assert sum(report["accepted"] for report in told) == len(KEYS)
    assert all((ledger.job_result(key) or ("",))[0] == "done" for key in KEYS)
    sluggish = told[0]
    assert sluggish["overtaken"] > 0
    assert sluggish["late"] == sluggish["overtaken"]
    ledger.close()


def test_a_job_asked_for_while_what_it_waits_for_is_ending_is_never_left_waiting(database_url: str) -> None:
    migrate(database_url)
    ledger = SqlLedger(database_url)
    for n in range(25):
        first, second, third = (JobRequest(f"{name}-{n}", "measure", "gpu") for name in ("first", "second", "third"))
        ledger.enqueue([first, second], 0.0)
        ending = ledger.claim(first.key, "one", 60.0, 1.0)
        holding = ledger.claim(second.key, "two", 60.0, 1.0)
        assert ending is not None
        assert holding is not None
        together(
            partial(ledger.finish, ending, 2.0, then=[third]),
            partial(ledger.wait, holding, 2.0, first),
            partial(ledger.enqueue, [third, JobRequest(f"last-{n}", "measure", "gpu", {}, first.key)], 2.0),
        )
        states = [(ledger.job_result(f"{name}-{n}") or ("",))[0] for name in ("first", "second", "third", "last")]
        assert states == ["done", "queued", "queued", "queued"]
    ledger.close()


def together(*acts: Callable[[], None]) -> None:
    """Does all at the same moment, each in a thread; raises what any of them raised."""
    barrier = Barrier(len(acts))

    def act(what: Callable[[], None]) -> None:
        barrier.wait()
        what()

    with ThreadPoolExecutor(len(acts)) as threads:
        list(threads.map(act, acts))


def fought(url: str) -> list[dict[str, list[tuple[str, int]]]]:
    """Runs the rivals to their end, the others once the sluggish one holds a job; what each told."""
    script = str(Path(rival_worker.__file__))
    processes = [
        subprocess.Popen(
            [sys.executable, script, url, name, manner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, manner in RIVALS.items()
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n".join(KEYS))
        process.stdin.close()
        if process is processes[0]:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
    for process in processes:
        assert process.wait() == 0
    return [json.loads(process.stdout.read()) for process in processes if process.stdout]
