"""The job that compares more samples of a candidate with its base, because a reviewer of its verdict asked for them."""

from collections.abc import Sequence

from gate.domain.errors import InvalidInput
from gate.domain.evidence import BasinProfile, Evidence, extended_evidence_key
from gate.domain.jobs import profile_key
from gate.domain.overview import Narrowing
from gate.domain.prompts import ChangedPrompts, fitting
from gate.domain.review import refuse_samples
from gate.domain.verdict import Review
from tasks.asked import asked
from tasks.bench import Bench, Tell
from tasks.candidate import Measured
from tasks.checkpoints import locate
from tasks.extending import Wanted, extend_evidence
from tasks.inspect import fetched
from tasks.measure import check_unchanged
from tasks.profile import base_named, bench_of
from tasks.running import JobContext, JobDone


def run(job: JobContext) -> JobDone:
    """Writes new evidence beside the old, which stays as it is; killed and done again, it finds the same numbers."""
    key, judged = job.claim.payload["evaluation"], job.claim.payload["verdict"]
    row, review = asked(job.ledger, key), _asked_for(job, key, judged)
    before, profile = _known(job, job.claim.payload["evidence"])
    job.progress("loading", 0.0)
    folder = fetched(job, row)
    check_unchanged(before.evidence, folder)
    bench = _bench(job, before.evidence)
    wanted = Wanted(review.items, extended_evidence_key(before.evidence.key, judged))
    kept = job.settings.prompts_kept
    found = extend_evidence(before, wanted, locate(folder), bench, profile, _telling(job), kept)
    job.ledger.save_evidence(job.claim, found.evidence, job.now(), found.prompts)
    return JobDone({"evidence": found.evidence.key})


def _asked_for(job: JobContext, key: str, judged: str) -> Review:
    review = job.ledger.review(key, judged)
    if review is None:
        raise InvalidInput(f"expected that somebody asked for more samples of evaluation {key}, found nobody")
    return review


def _known(job: JobContext, key: str) -> tuple[Measured, BasinProfile]:
    """What was measured so far, and the base's profile it was compared with."""
    evidence = job.ledger.evidence(key)
    refuse_samples(evidence)
    assert evidence is not None
    base, suite = evidence.base_digest or "", evidence.suite_digest or ""
    profile = job.ledger.profile(profile_key(base, suite, evidence.plan.digest))
    if profile is None:
        raise InvalidInput(
            "expected the profile of the base that was compared with, found none; register the version again"
        )
    prompts = fitting(evidence, job.ledger.prompts(key)) or ChangedPrompts()
    return Measured(evidence, prompts), profile


def _bench(job: JobContext, evidence: Evidence) -> Bench:
    """The base and the suite as they were when the comparison began."""
    base = base_named(job.ledger, evidence.base_name or "")
    if base.digest != evidence.base_digest:
        raise InvalidInput(
            f"expected base {base.name} with the bytes that were compared with ({(evidence.base_digest or '')[:12]}), found "
            f"others ({base.digest[:12]}): it was onboarded anew since; register the version again"
        )
    return bench_of(job.settings, base, evidence.plan, evidence.suite_digest)


def _telling(job: JobContext) -> Tell:
    def told(stage: str, fraction: float, narrowing: Sequence[Narrowing] | None = None, /) -> None:
        job.progress(stage, 0.1 + 0.9 * fraction, narrowing)

    return told
