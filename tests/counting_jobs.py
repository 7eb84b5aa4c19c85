"""Jobs for a real worker in tests: ``celery -A tasks.app worker -I counting_jobs``.

Each start appends a line to the file named by ``COUNTING_JOBS_TRACE``; a job goes on once the file named by its
payload's ``until`` is there.
"""

import os
import time
from pathlib import Path

from gate.domain.jobs import KINDS
from tasks.running import FUNCTIONS, JobContext, JobDone

TRACE = "COUNTING_JOBS_TRACE"


def run(job: JobContext) -> JobDone:
    """Says that it began, waits to be let through, ends."""
    with Path(os.environ[TRACE]).open("a") as trace:
        trace.write(f"{os.getpid()} {job.claim.key} {job.claim.epoch}\n")
    until = job.claim.payload.get("until")
    while until and not Path(until).exists():
        job.progress("waiting", 0.5)
        time.sleep(0.05)
    return JobDone({"epoch": job.claim.epoch})


# Not where a test only imports this: there the jobs stay the real ones.
if TRACE in os.environ:
    FUNCTIONS.update(dict.fromkeys(KINDS, run))
