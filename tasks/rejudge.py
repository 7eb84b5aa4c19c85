"""The job that judges again, without measuring: because a waiver began or ended, or more samples were compared."""

from collections.abc import Sequence
from dataclasses import replace

from gate.bootstrap import build_signer
from gate.domain.errors import NotFound
from gate.domain.jobs import extend_key
from gate.domain.overview import EvaluationRow
from gate.domain.review import sampled
from gate.domain.verdict import Review, ReviewDecision, Verdict
from tasks.asked import asked, policy_of
from tasks.judge import gathered, judged, signed
from tasks.places import Places
from tasks.running import JobContext, JobDone
from tasks.waivers import granted

SECONDS_A_DAY = 86_400
_EXTENDED = "extended"


def run(job: JobContext) -> JobDone:
    """Judges what is kept, as of now, and puts that verdict in the place of the one before, where it is another.

    What a person decided on stands, unless it rests on a waiver that is over. The life of the verdict is counted from the
    first judging of the same evidence.
    """
    key = job.claim.payload["evaluation"]
    row, kept = _with_samples(job, asked(job.ledger, key)), job.ledger.judged(key)
    if kept is None:
        raise NotFound(f"expected a verdict on evaluation {key}, found none to judge again")
    evidence, policy = gathered(job.ledger, row), policy_of(job.settings, row)
    if kept[0].review is not None and _rests_well(job, kept[0]):
        return JobDone({"outcome": kept[0].outcome})
    verdict = judged(job, row, evidence, policy)
    first = job.ledger.first_judged_at(key) or verdict.judged_at
    until = min(verdict.expires_at, first + policy.validity_days * SECONDS_A_DAY)
    verdict = sampled(verdict.model_copy(update={"expires_at": until}), *_samples(job, key))
    envelopes = signed(build_signer(job.settings), evidence, verdict)
    job.ledger.replace_verdict(job.claim, key, verdict, envelopes, job.now())
    if _EXTENDED in job.claim.payload:
        Places(job.settings).forget_candidate(key)
    return JobDone({"outcome": verdict.outcome})


def _with_samples(job: JobContext, row: EvaluationRow) -> EvaluationRow:
    """The evaluation with the evidence that more samples were added to; as it is where they could not be compared."""
    extended = job.claim.payload.get(_EXTENDED)
    found = extended is not None and job.ledger.evidence(extended) is not None
    return replace(row, evidence_key=extended) if found else row


def _samples(job: JobContext, key: str) -> tuple[Sequence[Review], str | None]:
    """Who asked for more samples that were compared since, or could not be; and why those asked for last could not."""
    ended: list[tuple[Review, str | None]] = []
    for review in reversed(job.ledger.reviews(key)):
        if review.decision is ReviewDecision.MORE_SAMPLES:
            state, _, error = job.ledger.job_result(extend_key(key, review.verdict_digest)) or ("", None, None)
            ended += [(review, error or "no reason was recorded")] if state == "failed" else []
            ended += [(review, None)] if state == "done" else []
    return [review for review, _ in ended], ended[-1][1] if ended else None


def _rests_well(job: JobContext, verdict: Verdict) -> bool:
    """Whether every waiver that a verdict rests on is still in force."""
    in_force = {waiver.id for waiver in granted(job, verdict.candidate_digest or "") if waiver.expires_at > job.now()}
    return all(waiver.id in in_force for waiver in verdict.waivers)
