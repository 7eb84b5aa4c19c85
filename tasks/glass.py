"""The job that signs the approval that breaking the glass gives, or revokes it where somebody rejected it afterwards."""

from gate.adapters.revoking import Revoker
from gate.bootstrap import build_signer
from gate.domain.breaking import broken, refuse_breaking
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.records import KeptGlass
from gate.domain.verdict import Review, ReviewDecision
from tasks.asked import asked, policy_of
from tasks.judge import gathered, signed
from tasks.running import JobContext, JobDone


def run(job: JobContext) -> JobDone:
    """Does what is due of a broken glass; one over which the glass can no longer be broken ends unsigned."""
    kept = job.ledger.glass(job.claim.payload["glass"])
    if kept.review is not None and kept.review.decision is ReviewDecision.REJECT:
        return _revoked(job, kept, kept.review)
    if kept.signed or kept.ended:
        return JobDone({"outcome": "ended" if kept.ended else "signed"})
    try:
        return _signed(job, kept)
    except InvalidInput as error:
        job.ledger.end_glass(job.claim, kept.id, str(error), job.now())
        raise


def _signed(job: JobContext, kept: KeptGlass) -> JobDone:
    row, judged = asked(job.ledger, kept.evaluation), job.ledger.judged(kept.evaluation)
    if judged is None:
        raise NotFound(f"expected a verdict on evaluation {kept.evaluation}, found none")
    verdict, evidence = judged[0], gathered(job.ledger, row)
    revoked = job.ledger.revocation(verdict.subject, verdict.candidate_digest)
    refuse_breaking(verdict, policy_of(job.settings, row), revoked[0] if revoked else None, job.now())
    if evidence.digest != verdict.evidence_digest:
        raise InvalidInput(
            f"expected the evidence that was judged ({verdict.evidence_digest[:12]}), found other evidence "
            f"({evidence.digest[:12]}); have the version evaluated again"
        )
    approved = broken(verdict, kept.glass)
    envelopes = signed(build_signer(job.settings), evidence, approved)
    job.ledger.save_glass(job.claim, kept.id, approved, envelopes, job.now())
    return JobDone({"outcome": approved.outcome})


def _revoked(job: JobContext, kept: KeptGlass, review: Review) -> JobDone:
    """Takes the approval back for good; one that was never signed let nothing through."""
    if not kept.signed:
        return JobDone({"outcome": "ended"})
    why = f"breaking the glass was rejected by {review.reviewer}: {review.reason}"
    revoker = Revoker(job.ledger, build_signer(job.settings), job.now)
    versions = revoker.revoke(kept.request.version, why, review.reviewer)
    return JobDone({"outcome": "revoked", "versions": [each.identity for each in versions]})
