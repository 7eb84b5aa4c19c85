"""Signed summaries for tests: real keys, real envelopes."""

import json
import time
from pathlib import Path
from typing import Any

from builders import a_verdict, an_evidence

from gate.adapters.signing import DsseSigner, generate_key
from gate.domain.attestation import PAYLOAD_TYPE, measurement_statement, summary_statement
from gate.domain.checkpoint import Checkpoint
from gate.domain.evidence import canonical_json
from gate.domain.verdict import Outcome


def a_key(folder: Path, name: str = "gate") -> tuple[Path, Path]:
    """A new key pair: the private and the public file."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    public.write_bytes(generate_key(private))
    return private, public


def an_attestation(private: Path, identity: str, candidate: Checkpoint | None = None, **changes: Any) -> str:
    """The value of tag ``gate.vsa`` for a version (of these files); an approval unless changed."""
    now = int(time.time())
    given = {
        "subject": identity,
        "outcome": Outcome.APPROVED,
        "reason": "All checks pass",
        "policy": "default",
        "judged_at": now - 10,
        "expires_at": now + 3600,
    }
    evidence = an_evidence(candidate=candidate) if candidate else an_evidence()
    verdict = a_verdict(evidence, **(given | changes))
    signer = DsseSigner(private)
    measurement = signer.sign(canonical_json(measurement_statement(evidence, verdict)), PAYLOAD_TYPE)
    summary = canonical_json(summary_statement(verdict, evidence.candidate, measurement))
    return json.dumps(signer.sign(summary, PAYLOAD_TYPE))
