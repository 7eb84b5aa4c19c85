"""The job that profiles a base: once per base × suite × plan, shared by all its fine-tunes."""

from gate.domain.checkpoint import Base
from gate.domain.errors import NotFound
from gate.domain.evaluation import seed_of
from gate.domain.evidence import Plan, digest_json
from gate.ports import Ledger
from gate.settings import Settings
from tasks.asked import policy_in_force
from tasks.bases import base_files
from tasks.bench import Bench
from tasks.places import Places
from tasks.profiling import profile_base
from tasks.running import JobContext, JobDone
from tasks.warm import warm_bench


def run(job: JobContext) -> JobDone:
    """Profiles the base named in the payload under the plan of the policy named there."""
    base = base_named(job.ledger, job.claim.payload["base"])
    plan = policy_in_force(job.settings, job.claim.payload["policy"]).plan
    job.progress("loading the base", 0.0)
    bench = bench_of(job.settings, base, plan)
    places = Places(job.settings)
    # The seed follows from what is profiled: asking again cannot re-roll the base's numbers.
    seed = seed_of(digest_json(job.claim.key))
    profile = profile_base(bench, plan, seed, places.gradients(job.claim.key), job.progress)
    job.ledger.save_profile(job.claim, profile, job.now())
    return JobDone({"seconds": profile.seconds})


def base_named(ledger: Ledger, name: str) -> Base:
    """The onboarded base of that name."""
    for base in ledger.bases():
        if base.name == name:
            return base
    raise NotFound(f"expected an onboarded base {name!r}, found none; onboard it with: basin-gate base add")


def bench_of(settings: Settings, base: Base, plan: Plan) -> Bench:
    """The base, loaded once per worker process and kept."""
    return warm_bench(base, base_files(settings, base), settings.device, settings.threads, plan.compute_dtype)
