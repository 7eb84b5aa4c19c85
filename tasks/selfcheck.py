"""The job that checks the gate itself: one control planted on an onboarded base, measured and judged under one policy.

Nothing of it is registered, signed, or counted among verdicts: it ends in a table of its own.
"""

from gate.domain.evaluation import seed_of
from gate.domain.evidence import digest_json
from gate.domain.selfcheck import Control, ControlResult
from tasks.asked import policy_in_force
from tasks.bases import base_files, profile_job
from tasks.controls.checking import check_control, unchecked
from tasks.examining import Ready
from tasks.places import Places
from tasks.profile import base_named, bench_of
from tasks.running import JobContext, JobDone, JobWaits


def run(job: JobContext) -> JobDone | JobWaits:
    """Keeps what became of the control; waits for the base's profile where that is still to be made."""
    base = base_named(job.ledger, job.claim.payload["base"])
    policy = policy_in_force(job.settings, job.claim.payload["policy"])
    control = Control(job.claim.payload["control"])
    wanted = profile_job(base, policy, job.settings.gpu_sizes())
    profile = job.ledger.profile(wanted.key)
    if profile is None:
        state, _, error = job.ledger.job_result(wanted.key) or ("not asked for", None, None)
        if state != "failed":
            return JobWaits((wanted,))
        return _ended(job, unchecked(control, base, policy, f"expected a profile of {base.name}, found none: {error}"))
    job.progress("loading the base", 0.0)
    places = Places(job.settings)
    gradients = places.gradients(wanted.key)
    folder = base_files(job.settings, base)
    bench = bench_of(job.settings, base, policy.plan, profile.suite_digest)
    ready = Ready(bench, folder, profile, gradients if gradients.is_file() else None)
    # The seed follows from what is asked: asking again for the same cannot re-roll a control until it passes.
    seed = seed_of(digest_json(job.claim.key))
    return _ended(job, check_control(control, ready, policy, seed, places.controls(), job.progress))


def _ended(job: JobContext, result: ControlResult) -> JobDone:
    job.ledger.save_control(job.claim, result, job.now())
    return JobDone({"outcome": result.check})
