"""The items that were kept back, for a reviewer who asks for more samples, and how far those are that were asked for."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from gate.api.door import Door
from gate.domain.jobs import extend_key
from gate.domain.review import no_samples, objection
from gate.domain.verdict import ReviewDecision, Verdict


class SamplesView(BaseModel):
    """What more samples there are: of each undecided capability how many items were kept back, and why none can be asked for
    (``None`` where they can). ``asked_by`` is who asked for those that are being compared now, ``progress`` how far they are."""

    model_config = ConfigDict(frozen=True)
    reserve: Mapping[str, int]
    why_not: str | None
    asked_by: str | None
    stage: str
    progress: float


def samples_of(door: Door, key: str, verdict: Verdict) -> SamplesView:
    """The samples in reserve of what a verdict was judged on."""
    evidence = door.ledger.evidence(verdict.evidence_key)
    review = door.ledger.review(key, verdict.digest)
    asked = review is not None and review.decision is ReviewDecision.MORE_SAMPLES
    job = extend_key(key, verdict.digest)
    work = next((each for each in door.ledger.at_work() if each.key == job), None) if asked else None
    return SamplesView(
        reserve={kept.capability: kept.reserve for kept in evidence.paired_outcomes} if evidence else {},
        why_not=objection(verdict, ReviewDecision.MORE_SAMPLES) or no_samples(evidence),
        asked_by=review.reviewer if review and asked else None,
        stage=work.stage if work else "",
        progress=work.fraction if work else 0.0,
    )
