"""The job that signs what a person decided about a verdict, and so lets it be written to the registry."""

from gate.bootstrap import build_signer
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.review import refuse_review, reviewed
from gate.domain.verdict import Review
from tasks.asked import asked
from tasks.judge import gathered, signed
from tasks.running import JobContext, JobDone


def run(job: JobContext) -> JobDone:
    """Signs the verdict as its reviewer decided it; refuses where it may not be decided so (any more)."""
    key = job.claim.payload["evaluation"]
    row, review, kept = asked(job.ledger, key), _asked_for(job, key), job.ledger.judged(key)
    if review is None or kept is None:
        raise NotFound(f"expected a review of evaluation {key} and its verdict, found {review and 'no verdict'}")
    if kept[0].review == review:
        return JobDone({"outcome": kept[0].outcome})
    refuse_review(kept[0], review, row.request.version.tags)
    evidence = gathered(job.ledger, row)
    if evidence.digest != kept[0].evidence_digest:
        raise InvalidInput(
            f"expected the evidence that was judged ({kept[0].evidence_digest[:12]}), found other evidence "
            f"({evidence.digest[:12]}); have the version evaluated again"
        )
    verdict = reviewed(kept[0], review)
    envelopes = signed(build_signer(job.settings), evidence, verdict)
    job.ledger.save_review(job.claim, key, verdict, envelopes, job.now())
    return JobDone({"outcome": verdict.outcome})


def _asked_for(job: JobContext, key: str) -> Review | None:
    """The review that the job is about; one asked for by an older gate does not say of which verdict."""
    digest = job.claim.payload.get("verdict")
    return job.ledger.review(key, digest) if digest else next(iter(job.ledger.reviews(key)), None)
