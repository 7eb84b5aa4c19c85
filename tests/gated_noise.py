"""The product's jobs for a real worker in tests, its draws of noise held back: ``celery -A tasks.app worker -I gated_noise``.

A draw under noise is scored once the file named by ``GATED_NOISE`` is there; the base itself at once.
"""

import os
import time
from pathlib import Path

from tasks import noise
from tasks.running import FUNCTIONS, JobContext, JobDone

GATE = "GATED_NOISE"


def run(job: JobContext) -> JobDone:
    """Waits to be let through, then scores the draw."""
    while job.claim.payload["sigma"] and not Path(os.environ[GATE]).exists():
        job.progress("waiting", 0.0)
        time.sleep(0.05)
    return noise.run(job)


# Not where a test only imports this.
if GATE in os.environ:
    FUNCTIONS["noise"] = run
