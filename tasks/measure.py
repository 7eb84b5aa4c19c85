"""The job that measures what a candidate does, on the bench of its base, as far as the verdict needs it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gate.domain.errors import NotFound, NotMeasurable
from gate.domain.evidence import Defect, DefectCode, Evidence
from gate.domain.judging import decided
from gate.domain.overview import Narrowing
from gate.domain.prompts import ChangedPrompts
from tasks.asked import asked, policy_of
from tasks.bench import Tell, file_digest
from tasks.candidate import measure_candidate
from tasks.checkpoints import locate
from tasks.inspect import fetched
from tasks.profile import base_named, bench_of
from tasks.running import JobContext, JobDone


def run(job: JobContext) -> JobDone:
    """Completes the static evidence; a candidate that cannot be measured gets that as a finding, not an error."""
    row = asked(job.ledger, job.claim.payload["evaluation"])
    policy = policy_of(job.settings, row)
    static = job.ledger.evidence(row.evidence_key or "")
    profile = job.ledger.profile(job.claim.payload["profile"])
    if static is None or profile is None or static.base_name is None:
        raise NotFound("expected static evidence and the base's profile, found one missing; register the version again")
    job.progress("loading", 0.15)
    folder = fetched(job, row)
    check_unchanged(static, folder)
    bench = bench_of(job.settings, base_named(job.ledger, static.base_name), static.plan, static.suite_digest)
    kept = job.settings.prompts_kept
    try:
        evidence, prompts = measure_candidate(
            static, locate(folder), bench, profile, partial(decided, policy), _telling(job), kept
        )
    except NotMeasurable as error:
        found = Defect(code=DefectCode.NOT_MEASURABLE, message=str(error))
        evidence, prompts = static.model_copy(update={"defects": (*static.defects, found)}), ChangedPrompts()
    job.ledger.save_evidence(job.claim, evidence, job.now(), prompts)
    return JobDone({"evidence": evidence.key})


def check_unchanged(static: Evidence, folder: Path) -> None:
    """Refuses to measure other bytes than the ones that were hashed (the folder may have been fetched again)."""
    for file in static.candidate.files:
        if file_digest(folder, file.path) != file:
            raise NotMeasurable(
                f"expected {file.path} with sha256 {file.sha256}, found other bytes: the artifacts were changed while "
                "they were evaluated; register them as a new version"
            )


def _telling(job: JobContext) -> Tell:
    def told(stage: str, fraction: float, narrowing: Sequence[Narrowing] | None = None, /) -> None:
        job.progress(stage, 0.15 + 0.85 * fraction, narrowing)

    return told
