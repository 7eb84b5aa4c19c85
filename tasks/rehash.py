"""The job that fetches a promoted version's files once more and hashes them: are they still what was judged?"""

import shutil

import structlog

from gate.adapters.folder_digests import folder_digests
from gate.adapters.revoking import Revoker
from gate.bootstrap import build_registry, build_signer
from gate.domain.checkpoint import ModelVersion, digest_of
from gate.domain.errors import NotFound, NotMeasurable, Unverified
from gate.domain.overview import EvaluationRow
from gate.domain.verdict import Outcome
from gate.ports import Registry
from tasks.asked import asked
from tasks.places import Places
from tasks.running import JobContext, JobDone

log = structlog.get_logger(__name__)
ACTOR = "rehash"


def run(job: JobContext) -> JobDone:
    """Takes the approval back where any byte is another one, or the files are gone; else changes nothing."""
    row = asked(job.ledger, job.claim.payload["evaluation"])
    kept = job.ledger.verdict(row.request.key)
    if kept is None or kept[0].outcome is not Outcome.APPROVED or kept[0].candidate_digest is None:
        return JobDone({"changed": None})
    registry = build_registry(job.settings)
    version = _subject(registry, row)
    if version is None:
        return JobDone({"changed": None})
    found = _found(job, registry, version, row.request.key)
    if found == kept[0].candidate_digest:
        return JobDone({"changed": False})
    why = f"its artifacts were changed after the verdict: expected sha256 {kept[0].candidate_digest} over all files, found {found}"
    log.error(
        "artifacts changed after the verdict", version=version.uri, expected=kept[0].candidate_digest, found=found
    )
    Revoker(job.ledger, build_signer(job.settings), job.now).void(version, why, ACTOR)
    return JobDone({"changed": True, "found": found})


def _subject(registry: Registry, row: EvaluationRow) -> ModelVersion | None:
    """The version, unless it was deleted (and perhaps made again): then there is nothing to serve."""
    try:
        now = registry.version(row.request.version.name, row.request.version.version)
    except NotFound:
        return None
    return now if now.identity == row.request.version.identity else None


def _found(job: JobContext, registry: Registry, version: ModelVersion, key: str) -> str:
    """The digest over the files that are served now, or why there are none. What MLflow refuses, or cannot tell now, is no change."""
    folder = Places(job.settings).rehashed(key)
    shutil.rmtree(folder, ignore_errors=True)
    job.progress("fetching", 0.05)
    try:
        registry.fetch(version, folder)
        job.progress("hashing", 0.7)
        return digest_of(folder_digests(folder))
    except (NotFound, NotMeasurable, Unverified) as error:
        return f"no such files ({error})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
