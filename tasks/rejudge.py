"""The job that judges evidence again, without measuring, because a waiver began or ended."""

from gate.bootstrap import build_signer
from gate.domain.errors import NotFound
from gate.domain.verdict import Verdict
from tasks.asked import asked, policy_of
from tasks.judge import gathered, judged, signed
from tasks.running import JobContext, JobDone
from tasks.waivers import granted

SECONDS_A_DAY = 86_400


def run(job: JobContext) -> JobDone:
    """Judges what is kept, as of now, and puts that verdict in the place of the one before, where it is another.

    What a person decided on stands, unless it rests on a waiver that is over. The life of the verdict is counted from the
    first judging of the same evidence.
    """
    key = job.claim.payload["evaluation"]
    row, kept = asked(job.ledger, key), job.ledger.verdict(key)
    if kept is None:
        raise NotFound(f"expected a verdict on evaluation {key}, found none to judge again")
    evidence, policy = gathered(job.ledger, row), policy_of(job.settings, row)
    if kept[0].review is not None and _rests_well(job, kept[0]):
        return JobDone({"outcome": kept[0].outcome})
    verdict = judged(job, row, evidence, policy)
    first = job.ledger.first_judged_at(key) or verdict.judged_at
    until = min(verdict.expires_at, first + policy.validity_days * SECONDS_A_DAY)
    verdict = verdict.model_copy(update={"expires_at": until})
    envelopes = signed(build_signer(job.settings), evidence, verdict)
    job.ledger.replace_verdict(job.claim, key, verdict, envelopes, job.now())
    return JobDone({"outcome": verdict.outcome})


def _rests_well(job: JobContext, verdict: Verdict) -> bool:
    """Whether every waiver that a verdict rests on is still in force."""
    in_force = {waiver.id for waiver in granted(job, verdict.candidate_digest or "") if waiver.expires_at > job.now()}
    return all(waiver.id in in_force for waiver in verdict.waivers)
