"""Several processes, dropped jobs and workers that outlive their lease: each job is still written exactly once."""

import json
import subprocess
import sys
from pathlib import Path

import rival_worker

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.ports import JobRequest

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
    assert sluggish["refused"] == sluggish["overtaken"]
    ledger.close()


def fought(url: str) -> list[dict[str, list[tuple[str, int]]]]:
    """Runs the rivals to their end; what each told."""
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
    for process in processes:
        assert process.wait() == 0
    return [json.loads(process.stdout.read()) for process in processes if process.stdout]
