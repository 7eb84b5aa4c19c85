"""The job that judges one evaluation's evidence, signs the verdict, and so lets it be written to the registry."""

from collections.abc import Mapping
from typing import Any

from gate.adapters.conditions import idle_rules
from gate.adapters.signing import DsseSigner
from gate.bootstrap import build_signer
from gate.domain.attestation import PAYLOAD_TYPE, measurement_statement, summary_statement
from gate.domain.checkpoint import Checkpoint, Layout, Lineage
from gate.domain.evidence import Evidence, Name, canonical_json
from gate.domain.jobs import inspect_key, measure_key
from gate.domain.judging import judge
from gate.domain.overview import EvaluationRow
from gate.domain.policy import Policy
from gate.domain.revocation import overruled
from gate.domain.verdict import Verdict
from gate.ports import Ledger
from tasks.asked import asked, policy_of
from tasks.places import Places
from tasks.running import JobContext, JobDone
from tasks.waivers import granted


def run(job: JobContext) -> JobDone:
    """Judges what there is; where the work before failed for good, that is the verdict's error."""
    key = job.claim.payload["evaluation"]
    row = asked(job.ledger, key)
    policy = policy_of(job.settings, row)
    evidence = gathered(job.ledger, row)
    verdict = judged(job, row, evidence, policy)
    envelopes = signed(build_signer(job.settings), evidence, verdict)
    job.ledger.save_verdict(
        job.claim,
        key,
        verdict,
        envelopes,
        job.now(),
        dry_run=policy.enforcement == "dry_run",
        basin_position=farthest(evidence),
    )
    Places(job.settings).forget_candidate(key)
    return JobDone({"outcome": verdict.outcome})


def judged(job: JobContext, row: EvaluationRow, evidence: Evidence, policy: Policy) -> Verdict:
    """The verdict now, with the waivers that are granted for these bytes, blocked where it was revoked."""
    version, now = row.request.version, int(job.now())
    idle = idle_rules(policy, evidence, version)
    waivers = granted(job, evidence.candidate.digest) if evidence.candidate.files else ()
    verdict = judge(policy, evidence, subject=version.identity, now=now, idle=idle, waivers=waivers)
    revoked = job.ledger.revocation(verdict.subject, verdict.candidate_digest)
    return overruled(verdict, revoked[0] if revoked else None)


def farthest(evidence: Evidence) -> float | None:
    """How far out the candidate is in its base's basin, on the capability where it is farthest; 1 is the edge."""
    positions = [m.estimate.value for m in evidence.measurements if m.name is Name.BASIN_POSITION]
    return max(positions, default=None)


def gathered(ledger: Ledger, row: EvaluationRow) -> Evidence:
    """The evidence of an evaluation, with what went wrong on the way as its errors."""
    evidence = ledger.evidence(row.evidence_key) if row.evidence_key else None
    errors = []
    steps = [inspect_key(row.request.key)] + ([measure_key(row.evidence_key)] if row.evidence_key else [])
    for step in steps:
        found = ledger.job_result(step)
        if found is not None and found[0] == "failed":
            errors.append(f"{step.split(':')[0]} failed: {found[2] or 'no reason was recorded'}")
    if evidence is None:
        evidence = empty_evidence(row.request.key)
        errors = errors or ["nothing was measured"]
    return evidence.model_copy(update={"errors": (*evidence.errors, *errors)})


def empty_evidence(key: str) -> Evidence:
    """What is known of a candidate whose files could not even be looked at."""
    return Evidence(key=key, candidate=Checkpoint(layout=Layout.UNKNOWN, files=()), lineage=Lineage())


def signed(signer: DsseSigner, evidence: Evidence, verdict: Verdict) -> Mapping[str, Any]:
    """The envelopes of a verdict: ``measurement`` with all numbers, ``summary`` that the version carries.

    Where the gate signs without a key as well, ``sigstore`` is the bundle of that summary; no verdict is without it then.
    """
    measurement = signer.sign(canonical_json(measurement_statement(evidence, verdict)), PAYLOAD_TYPE)
    summary = canonical_json(summary_statement(verdict, evidence.candidate, measurement))
    envelopes = {"summary": signer.sign(summary, PAYLOAD_TYPE), "measurement": measurement}
    return envelopes if signer.keyless is None else {**envelopes, "sigstore": signer.keyless.bundle(summary)}
