"""The job that scores a base under one draw of noise, for a profile that waits for it; at scale 0 the base itself."""

import time

from gate.domain.evaluation import seed_of
from gate.domain.evidence import digest_json
from tasks.drawing import score_draw
from tasks.measurements.basin import Draw
from tasks.profile import asked_for, bench_of
from tasks.running import JobContext, JobDone


def run(job: JobContext) -> JobDone:
    """The outcomes by capability, what they were made with, and the seconds they took."""
    asked = job.claim.payload
    base, plan = asked_for(job, asked["profile"])
    job.progress("loading the base", 0.0)
    bench = bench_of(job.settings, base, plan, asked.get("suite"))
    begun = time.monotonic()
    draw = Draw(float(asked["sigma"]), int(asked["draw"]), tuple(asked["capabilities"]))
    # The profile's own seed: whoever scores a draw, it is the same noise.
    outcomes = score_draw(bench, plan, seed_of(digest_json(asked["profile"])), draw, job.progress)
    return JobDone(
        {
            "outcomes": {capability: scores.tolist() for capability, scores in outcomes.items()},
            "provenance": dict(bench.provenance()),
            "seconds": round(time.monotonic() - begun, 3),
        }
    )
