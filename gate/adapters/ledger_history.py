"""What was once judged, with the evidence it was judged on: for replaying policies."""

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from gate.adapters.ledger_tables import evaluation, evidence, verdict
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Evidence
from gate.domain.rehearsal import Judged
from gate.domain.verdict import Verdict


def judged_since(c: sa.Connection, since: float) -> list[Judged]:
    """Versions that have a verdict and were asked for at or after a time, newest first; of each the newest verdict.

    The verdict is as it was given, whatever was revoked since.
    """
    wanted = (
        sa.select(evaluation.c.request, evidence.c.body.label("evidence"), verdict.c.body.label("verdict"))
        .join(verdict, verdict.c.key == evaluation.c.key)
        .join(evidence, evidence.c.key == evaluation.c.evidence_key)
        .where(evaluation.c.created_at >= since)
        .order_by(evaluation.c.created_at.desc(), evaluation.c.key)
    )
    return list(_newest_of_each(c.execute(wanted)))


def _newest_of_each(rows: Iterable[sa.Row[Any]]) -> Iterator[Judged]:
    seen: set[str] = set()
    for row in rows:
        version = EvaluationRequest.model_validate_json(row.request).version
        if version.identity not in seen:
            seen.add(version.identity)
            yield Judged(version, Evidence.model_validate_json(row.evidence), Verdict.model_validate_json(row.verdict))
