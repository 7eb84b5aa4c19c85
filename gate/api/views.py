"""What the API says, as documents."""

from collections.abc import Mapping
from typing import Any

from gate.domain.checkpoint import Frozen
from gate.domain.overview import EvaluationRow, Narrowing
from gate.domain.verdict import Verdict


class EvaluationView(Frozen):
    """One evaluation: what was asked, how far it is, what came of it. Times are Unix seconds; ``narrowing`` is how sure
    the comparison with the base is by now, ``opened_again`` why the version is evaluated once more under the same policy."""

    key: str
    name: str
    version: str
    subject: str
    policy: str
    policy_digest: str
    state: str
    stage: str
    progress: float
    outcome: str | None
    reason: str | None
    evidence_key: str | None
    run_id: str | None
    projected: bool
    created_at: float
    updated_at: float
    narrowing: tuple[Narrowing, ...] = ()
    opened_again: str | None = None

    @classmethod
    def of(cls, row: EvaluationRow) -> "EvaluationView":
        """The view of a ledger row."""
        request = row.request
        same = ("state", "stage", "progress", "outcome", "reason", "evidence_key", "run_id", "projected")
        return cls(
            key=request.key,
            name=request.version.name,
            version=request.version.version,
            subject=request.version.identity,
            policy=request.policy,
            policy_digest=request.policy_digest,
            created_at=row.created_at,
            updated_at=row.updated_at,
            narrowing=tuple(row.narrowing),
            opened_again=request.occasion.reason if request.occasion else None,
            **{field: getattr(row, field) for field in same},
        )


class EvaluationsView(Frozen):
    """A page of evaluations, newest first."""

    evaluations: tuple[EvaluationView, ...]


class VerdictView(Frozen):
    """A verdict, its evaluation, and the signed documents it travels in (``summary``, ``measurement``; ``sigstore``)."""

    evaluation: EvaluationView
    verdict: Verdict
    attestations: Mapping[str, Any]
