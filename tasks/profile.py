"""The job that profiles a base: once per base × suite × plan, shared by all its fine-tunes."""

from functools import partial

from gate.domain.checkpoint import Base
from gate.domain.errors import NotFound
from gate.domain.evaluation import seed_of
from gate.domain.evidence import Plan, digest_json
from gate.ports import Ledger
from gate.settings import Settings
from tasks.asked import policy_in_force
from tasks.bases import ancestor_files, base_files
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
    bench = bench_of(job.settings, base, plan, job.claim.payload.get("suite"))
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


def bench_of(settings: Settings, base: Base, plan: Plan, suite_digest: str | None = None) -> Bench:
    """The base, loaded once per worker process and kept, with its suite as it is or as it was by that digest."""
    files = base_files(settings, base)
    bench = warm_bench(base, files, settings.device, settings.threads, plan.compute_dtype, suite_digest)
    # The same bytes may have been onboarded again since they were loaded, with an ancestor this time.
    bench.base = base
    bench.ancestor = partial(ancestor_files, settings, base.ancestor) if base.ancestor else None
    return bench
