"""A verdict as a CycloneDX 1.6 bill of materials of a machine-learning model: which bytes, from which base, how they
measured, what was decided.

Written as the standard's JSON says it, since the standard's Python library has no model cards; that library's schema
validates it in the tests. The same verdict gives the same document.
"""

import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from gate.domain.attestation import POLICIES, instant
from gate.domain.checkpoint import Base, Checkpoint, ModelVersion
from gate.domain.evidence import MEANINGS, Evidence, Measurement, canonical_json
from gate.domain.verdict import Verdict

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MEDIA_TYPE = "application/vnd.cyclonedx+json; version=1.6"
CANDIDATE, BASE = "candidate", "base"
NAMESPACE = "basin-gate"
LIMITS = (
    "The verdict speaks of the capabilities that the suite asks about, on its items, and of nothing else. It is no "
    "promise that the model is safe, and no proof that it has no hidden trigger."
)


def bill_of_materials(
    found: ModelVersion, verdict: Verdict, evidence: Evidence, base: Base | None, run_url: str | None
) -> bytes:
    """The document. ``base`` is the onboarded base that the evidence was measured against, ``run_url`` where people see
    the evaluation."""
    document = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{verdict.subject}#{verdict.digest}')}",
        "version": 1,
        "metadata": {
            "timestamp": instant(verdict.judged_at),
            "tools": {"components": [{"type": "application", "name": "basin-gate", "version": version("basin-gate")}]},
            "component": _candidate(found, verdict, evidence, base, run_url),
        },
        "components": _files(evidence.candidate, CANDIDATE),
        "dependencies": [
            {"ref": CANDIDATE, "dependsOn": [_file_ref(CANDIDATE, file.path) for file in evidence.candidate.files]}
        ],
        "compositions": [{"aggregate": _completeness(evidence), "assemblies": [CANDIDATE]}],
    }
    return canonical_json(document)


def base_of(evidence: Evidence, bases: Iterable[Base]) -> Base | None:
    """The onboarded base that the evidence was measured against, if it is still onboarded."""
    return next((base for base in bases if base.digest == evidence.base_digest), None)


def _candidate(
    found: ModelVersion, verdict: Verdict, evidence: Evidence, base: Base | None, run_url: str | None
) -> dict[str, Any]:
    links = [{"type": "attestation", "url": run_url, "comment": "the evaluation: attestations/summary.dsse.json"}]
    return {
        "type": "machine-learning-model",
        "bom-ref": CANDIDATE,
        "name": found.name,
        "version": found.version,
        "description": verdict.reason,
        "pedigree": _pedigree(evidence, base),
        "modelCard": _model_card(verdict, evidence),
        "properties": _properties(_facts(verdict, evidence)),
        **({"externalReferences": links} if run_url else {}),
    }


def _pedigree(evidence: Evidence, base: Base | None) -> dict[str, Any]:
    lineage = evidence.lineage
    notes = f"The base was named {lineage.reference!r}, found in: {lineage.found_by}."
    if evidence.base_digest is None:
        return {"notes": notes if lineage.reference else "No base is known."}
    ancestor = {
        "type": "machine-learning-model",
        "bom-ref": BASE,
        "name": evidence.base_name or "base",
        "properties": _properties({"digest": evidence.base_digest}),
        **({"components": _files(base.checkpoint, BASE)} if base else {}),
    }
    return {"ancestors": [ancestor], "notes": notes}


def _model_card(verdict: Verdict, evidence: Evidence) -> dict[str, Any]:
    return {
        "quantitativeAnalysis": {"performanceMetrics": [_metric(each) for each in evidence.measurements]},
        "considerations": {
            "technicalLimitations": [LIMITS, *_shortcomings(verdict, evidence)],
        },
        "properties": _properties(
            {"suite": evidence.suite, "suite-digest": evidence.suite_digest, "plan-digest": evidence.plan.digest}
        ),
    }


def _shortcomings(verdict: Verdict, evidence: Evidence) -> Iterator[str]:
    yield from (f"{each.enforcement}: {each.defect.message}" for each in verdict.defects)
    yield from (f"not measured: {what}: {why}" for what, why in sorted(evidence.unmeasured.items()))
    yield from (f"error: {error}" for error in verdict.errors)


def _metric(measured: Measurement) -> dict[str, Any]:
    estimate = measured.estimate
    bounds = {"lowerBound": estimate.lower, "upperBound": estimate.upper}
    given = {name: str(bound) for name, bound in bounds.items() if bound is not None}
    return {
        "type": f"{measured.name} ({MEANINGS[measured.name].unit})",
        "value": str(estimate.value),
        **({"slice": measured.capability} if measured.capability else {}),
        **({"confidenceInterval": given} if given else {}),
    }


def _facts(verdict: Verdict, evidence: Evidence) -> dict[str, str | None]:
    return {
        "outcome": verdict.outcome.value,
        "subject": verdict.subject,
        "verdict-digest": verdict.digest,
        "policy": POLICIES + verdict.policy,
        "policy-digest": verdict.policy_digest,
        "judged-at": instant(verdict.judged_at),
        "expires-at": instant(verdict.expires_at),
        "candidate-digest": verdict.candidate_digest,
        "evidence-digest": verdict.evidence_digest,
        "layout": evidence.candidate.layout.value,
        "dtype": evidence.candidate.dtype,
        "parameters": str(evidence.candidate.parameters),
        **{f"rule:{_rule(f.rule, f.capability)}": f"{f.result}: {f.sentence}" for f in verdict.findings},
    }


def _rule(rule: str, capability: str | None) -> str:
    return f"{rule}/{capability}" if capability else rule


def _properties(facts: dict[str, str | None]) -> list[dict[str, str]]:
    return [{"name": f"{NAMESPACE}:{name}", "value": value} for name, value in facts.items() if value is not None]


def _files(checkpoint: Checkpoint, owner: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": _file_ref(owner, file.path),
            "name": file.path,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            "properties": _properties({"size": str(file.size)}),
        }
        for file in checkpoint.files
    ]


def _file_ref(owner: str, path: str) -> str:
    return f"{owner}/{path}"


def _completeness(evidence: Evidence) -> str:
    """Whether the files listed are all there are: without any, nothing is known of them."""
    return "complete" if evidence.candidate.files else "unknown"
