"""The job that profiles a base: once per base × suite × plan, shared by all its fine-tunes."""

from functools import partial

import numpy as np

from gate.domain.checkpoint import Base
from gate.domain.errors import NotFound, NotMeasurable
from gate.domain.evaluation import seed_of
from gate.domain.evidence import Plan, digest_json
from gate.domain.jobs import NOISE, noise_key, profile_key
from gate.domain.records import JobRequest
from gate.ports import Ledger
from gate.settings import Settings
from tasks.asked import policy_in_force
from tasks.bases import ancestor_files, base_files
from tasks.bench import Bench
from tasks.drawing import Elsewhere, all_draws, next_draws
from tasks.measurements.basin import Draw
from tasks.places import Places
from tasks.profiling import DRAWS_SHARE, profile_base
from tasks.running import JobContext, JobDone, JobWaits
from tasks.suites import load_suite
from tasks.warm import warm_bench


def run(job: JobContext) -> JobDone | JobWaits:
    """Profiles the base named in the payload under the plan of the policy named there.

    Its draws of noise are jobs of their own, for whatever workers there are; the rest is done here once they have ended.
    One that failed elsewhere is scored here: it fails again, for a reason that is told, or it was that worker's.
    """
    base, plan = asked_for(job, job.claim.key)
    suite = load_suite(base.suite, like=job.claim.payload.get("suite"))
    # The seed follows from what is profiled: asking again cannot re-roll the base's numbers.
    seed = seed_of(digest_json(job.claim.key))
    scored, failed = _scored(job, plan)
    wanted = next_draws(suite, plan, seed, scored.drawn)
    if needed := [each for each in wanted if (each.sigma, each.draw) not in failed]:
        job.progress("scoring the base under noise", DRAWS_SHARE * len(scored.drawn) / len(all_draws(plan)))
        return JobWaits(tuple(_request(job, base, plan, each) for each in needed))
    job.progress("loading the base", DRAWS_SHARE)
    bench = bench_of(job.settings, base, plan, job.claim.payload.get("suite"))
    gradients = Places(job.settings).gradients(job.claim.key)
    profile = profile_base(bench, plan, seed, gradients, job.progress, scored)
    job.ledger.save_profile(job.claim, profile, job.now())
    return JobDone({"seconds": profile.seconds})


def asked_for(job: JobContext, profile: str) -> tuple[Base, Plan]:
    """The base and the plan that a payload names, which are still those of the profile with that key."""
    base = base_named(job.ledger, job.claim.payload["base"])
    plan = policy_in_force(job.settings, job.claim.payload["policy"]).plan
    suite = job.claim.payload.get("suite") or load_suite(base.suite).digest
    if profile_key(base.digest, suite, plan.digest) != profile:
        raise NotMeasurable(
            f"expected base {base.name} as it was when its profile was asked for, found other files, another suite or "
            "another plan; what is asked for now is profiled on its own"
        )
    return base, plan


def _scored(job: JobContext, plan: Plan) -> tuple[Elsewhere, set[tuple[float, int]]]:
    """The draws that were scored, and those that failed."""
    keys = {noise_key(job.claim.key, *place): place for place in all_draws(plan)}
    found = job.ledger.job_results(tuple(keys))
    results = {keys[key]: result for key, (state, result, _) in found.items() if state == "done" and result}
    drawn = {
        place: {capability: np.asarray(scores) for capability, scores in result["outcomes"].items()}
        for place, result in results.items()
    }
    seconds = sum(float(result["seconds"]) for result in results.values())
    provenances = tuple(result["provenance"] for result in results.values())
    failed = {keys[key] for key, (state, *_) in found.items() if state == "failed"}
    return Elsewhere(drawn, seconds, provenances), failed


def _request(job: JobContext, base: Base, plan: Plan, draw: Draw) -> JobRequest:
    key = noise_key(job.claim.key, draw.sigma, draw.draw)
    queue = job.settings.gpu_sizes().queue_for(base, plan.compute_dtype)
    asked = {"profile": job.claim.key, "sigma": draw.sigma, "draw": draw.draw, "capabilities": list(draw.capabilities)}
    return JobRequest(key, NOISE, queue, {**job.claim.payload, **asked})


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
