"""The job that fetches a candidate, hashes every byte of it, finds its base, and compares the two on disk."""

from collections.abc import Callable
from pathlib import Path

from gate.bootstrap import build_registry
from gate.domain.checkpoint import Base, Checkpoint, Layout, Lineage
from gate.domain.errors import InvalidInput, NotFound, NotMeasurable
from gate.domain.evidence import Defect, DefectCode, Evidence
from gate.domain.jobs import CPU_QUEUE, JUDGE, MEASURE, judge_key, measure_key
from gate.domain.lineage import BASE_TAG, LineageHints, match_base, resolve_lineage
from gate.domain.overview import EvaluationRow
from gate.domain.policy import Policy
from gate.domain.records import JobRequest
from tasks.asked import asked, policy_of
from tasks.bases import base_files, profile_job
from tasks.checkpoints import locate
from tasks.places import Places
from tasks.running import JobContext, JobDone, JobWaits
from tasks.static_evidence import settled, static_evidence
from tasks.static_stage import BaseFiles, StaticResult, hints_of, inspect_folder
from tasks.warm import use_threads


def run(job: JobContext) -> JobDone | JobWaits:
    """Writes the static evidence; asks for the candidate to be measured where that can still decide something."""
    use_threads(job.settings.threads)
    key = job.claim.payload["evaluation"]
    row = asked(job.ledger, key)
    policy = policy_of(job.settings, row)
    job.progress("fetching", 0.02)
    try:
        folder = fetched(job, row)
        lineage = find_lineage(job, row, folder)
    except (NotFound, NotMeasurable, InvalidInput) as error:
        return _ended(job, row, _unfetched(row, policy, error), measure=None)
    base = match_base(lineage, job.ledger.bases())
    if base is None:
        static = inspect_folder(folder, None, None, _telling(job))
        evidence = static_evidence(static, lineage, None, policy, _unresolved(lineage))
        return _ended(job, row, _of_this_version(row, evidence), measure=None)
    return _compared(job, row, policy, folder, lineage, base)


def _compared(
    job: JobContext, row: EvaluationRow, policy: Policy, folder: Path, lineage: Lineage, base: Base
) -> JobDone | JobWaits:
    """Holds the candidate's files against its base's, once the base's profile has been made or cannot be."""
    try:
        profile = profile_job(base, policy, job.settings.gpu_sizes())
    except NotMeasurable as error:
        static = inspect_folder(folder, _attested(job, base), None, _telling(job))
        evidence = static_evidence(static, lineage, base, policy, _too_large(error))
        return _ended(job, row, _of_this_version(row, evidence), measure=None, base=base)
    profiled = job.ledger.profile(profile.key) is not None
    state, _, failure = job.ledger.job_result(profile.key) or ("not asked for", None, None)
    if not profiled and state != "failed":
        return JobWaits((profile,))
    gradients = Places(job.settings).gradients(profile.key)
    static = inspect_folder(folder, _attested(job, base), _existing(gradients), _telling(job))
    evidence = static_evidence(static, lineage, base, policy, suite_digest=profile.payload["suite"])
    if not profiled:
        evidence = evidence.model_copy(update={"errors": (_unprofiled(base, failure),)})
        return _ended(job, row, _of_this_version(row, evidence), measure=None, base=base)
    return _ended(job, row, evidence, measure=None if settled(policy, evidence) else profile, base=base)


def fetched(job: JobContext, row: EvaluationRow) -> Path:
    """The candidate's files on this machine, fetched once per evaluation."""
    folder = Places(job.settings).candidate(row.request.key)
    return folder if folder.is_dir() else build_registry(job.settings).fetch(row.request.version, folder)


def find_lineage(job: JobContext, row: EvaluationRow, folder: Path) -> Lineage:
    """Which base the candidate names, by the registry's tags, its own files, or the run that made it."""
    registry = build_registry(job.settings)
    version = registry.version(row.request.version.name, row.request.version.version)
    told = LineageHints(
        version_tag=version.tags.get(BASE_TAG),
        model_tag=registry.model_tags(version.name).get(BASE_TAG),
        run=registry.training_params(version),
    )
    own = {name: value for name, value in hints_of(locate(folder)).model_dump().items() if value}
    return resolve_lineage(told.model_copy(update=own))


def _of_this_version(row: EvaluationRow, evidence: Evidence) -> Evidence:
    """Evidence that other versions of the same bytes do not share: theirs may name another base, or be measured."""
    return evidence.model_copy(update={"key": row.request.key})


def _attested(job: JobContext, base: Base) -> BaseFiles:
    return locate(base_files(job.settings, base)), base.checkpoint


def _too_large(error: NotMeasurable) -> Defect:
    return Defect(code=DefectCode.NOT_MEASURABLE, message=str(error))


def _unprofiled(base: Base, error: str | None) -> str:
    return (
        f"expected a profile of base {base.name}, found that none could be made ({error}); mend that, onboard the base "
        "again with: basin-gate base add, then register the version again"
    )


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _telling(job: JobContext) -> Callable[[float], None]:
    return lambda fraction: job.progress("hashing and comparing", 0.05 + 0.1 * fraction)


def _unresolved(lineage: Lineage) -> Defect:
    named = (
        f"{lineage.reference!r} ({lineage.found_by}), which is no onboarded base"
        if lineage.reference
        else "no base named"
    )
    return Defect(
        code=DefectCode.BASE_UNRESOLVED,
        message=f"expected an onboarded base, found {named}; name it in the version's tag {BASE_TAG}, "
        "or onboard it with: basin-gate base add models:/NAME/VERSION --suite SUITE",
    )


def _unfetched(row: EvaluationRow, policy: Policy, error: Exception) -> Evidence:
    nothing = StaticResult(
        checkpoint=Checkpoint(layout=Layout.UNKNOWN, files=()),
        defects=(Defect(code=DefectCode.ARTIFACTS_MISSING, message=str(error)),),
    )
    return _of_this_version(row, static_evidence(nothing, Lineage(), None, policy))


def _ended(
    job: JobContext, row: EvaluationRow, evidence: Evidence, measure: JobRequest | None, base: Base | None = None
) -> JobDone:
    key = row.request.key
    job.ledger.save_evidence(job.claim, evidence, job.now())
    job.ledger.note(key, job.now(), claim=job.claim, evidence_key=evidence.key, base=base)
    payload = {"evaluation": key}
    if measure is None:
        return JobDone({"evidence": evidence.key}, (JobRequest(judge_key(key), JUDGE, CPU_QUEUE, payload),))
    wanted = JobRequest(
        measure_key(evidence.key), MEASURE, measure.queue, payload | {"profile": measure.key}, measure.key
    )
    judging = JobRequest(judge_key(key), JUDGE, CPU_QUEUE, payload, waits_for=wanted.key)
    return JobDone({"evidence": evidence.key}, (wanted, judging))
