"""Deliveries and evaluations: what was asked, and how far it has come."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_documents, ledger_outbox, tracing
from gate.adapters.database import insert_new
from gate.adapters.ledger_current import current, with_later
from gate.adapters.ledger_tables import ENDED, QUEUED, RUNNING, WAITING, delivery, evaluation, job, verdict
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import INSPECT, JUDGE, MEASURE
from gate.domain.overview import EvaluationRow, Narrowing
from gate.domain.records import Kept
from gate.domain.reopening import Against

_inspect = job.alias("inspect_job")
_measure = job.alias("measure_job")
_needed = job.alias("needed_job")
_judge = job.alias("judge_job")
SUPERSEDED = "superseded"
"""How an evaluation ended that a newer version made pointless. To readers that is an error with its reason; metrics tell
it apart, so that nobody is alerted of what was wanted."""
_ROOT = sa.func.coalesce(evaluation.c.root, evaluation.c.key)
_REOPENED = sa.func.coalesce(evaluation.c.reopened, 0)
_STEPS = {"inspect": _inspect, "measure": _measure, "needed": _needed, "judge": _judge}


def keep_delivery(
    c: sa.Connection, delivery_id: str, body_digest: str, body: bytes, request_key: str | None, now: float
) -> bool:
    """Keeps a delivery; whether neither its id nor its content was here before."""
    asked = delivery.c.request_key.is_(None) if request_key is None else delivery.c.request_key == request_key
    known = sa.select(delivery.c.id).where(delivery.c.body_digest == body_digest, asked)
    repeated = c.execute(known.limit(1)).first() is not None
    row = {"id": delivery_id, "body_digest": body_digest, "body": body, "request_key": request_key, "received_at": now}
    return insert_new(c, delivery, row) and not repeated


def add(c: sa.Connection, request: EvaluationRequest, now: float) -> bool:
    """Adds an evaluation; whether it was not there yet."""
    row = {
        "key": request.key,
        "name": request.version.name,
        "request": request.model_dump_json(),
        "trace": tracing.carrier(),
        "created_at": now,
        "updated_at": now,
        "root": request.root if request.occasion else None,
        "reopened": request.occasion.number if request.occasion else None,
    }
    return insert_new(c, evaluation, row)


def note(c: sa.Connection, key: str, now: float, **values: str | float | None) -> None:
    """Sets what is given; what is ``None`` stays."""
    given = {name: value for name, value in values.items() if value is not None}
    c.execute(sa.update(evaluation).where(evaluation.c.key == key).values(given | {"updated_at": now}))


def close(c: sa.Connection, key: str, outcome: str, reason: str, now: float) -> None:
    """Ends an evaluation, unless it has ended, and asks for that to be projected."""
    still_open = evaluation.c.key == key, evaluation.c.outcome.is_(None)
    ended = (
        sa.update(evaluation).where(*still_open).values(outcome=outcome, reason=reason, updated_at=now, ended_at=now)
    )
    if c.execute(ended).rowcount == 1:
        ledger_outbox.project(c, key, now)


def project_again(c: sa.Connection, now: float) -> int:
    """Asks for each ended evaluation to be projected that was not and has no outstanding request."""
    unseen = sa.select(evaluation.c.key).where(evaluation.c.outcome.is_not(None), evaluation.c.projected_at.is_(None))
    asked = ledger_outbox.outstanding_subjects(ledger_outbox.PROJECT)
    keys = c.execute(unseen.where(evaluation.c.key.not_in(asked))).scalars().all()
    for key in keys:
        ledger_outbox.project(c, key, now)
    return len(keys)


def one(c: sa.Connection, key: str) -> EvaluationRow | None:
    """One evaluation with the jobs at work on it."""
    row = c.execute(_with_jobs().where(evaluation.c.key == key)).mappings().first()
    return None if row is None else _row(row)


def listing(c: sa.Connection, limit: int, offset: int, name: str | None) -> Sequence[EvaluationRow]:
    """Evaluations, newest first."""
    query = _with_jobs().order_by(evaluation.c.created_at.desc(), evaluation.c.key).limit(limit).offset(offset)
    if name is not None:
        query = query.where(evaluation.c.name == name)
    return [_row(row) for row in c.execute(query).mappings()]


def several(c: sa.Connection, keys: Sequence[str]) -> Sequence[EvaluationRow]:
    """The evaluations of these keys, in any order."""
    return [_row(row) for row in c.execute(_with_jobs().where(evaluation.c.key.in_(keys))).mappings()]


def newest_of(c: sa.Connection, root: str) -> EvaluationRow | None:
    """The evaluation that speaks for a version under a policy: the first one, or the last that was opened again."""
    asked = (
        sa.select(evaluation.c.key).where(_of_roots([root])).order_by(_REOPENED.desc(), evaluation.c.created_at.desc())
    )
    key = c.execute(asked.limit(1)).scalar()
    return None if key is None else one(c, key)


def refuse_reopened(c: sa.Connection, key: str) -> None:
    """Raises ``InvalidInput`` for an evaluation that another one has taken the place of: nobody decides on it any more."""
    row = c.execute(sa.select(_ROOT.label("root"), _REOPENED.label("number")).where(evaluation.c.key == key)).first()
    if row is None:
        return
    later = evaluation.c.root == row.root, evaluation.c.reopened > row.number
    if c.execute(sa.select(evaluation.c.key).where(*later).limit(1)).first() is not None:
        raise InvalidInput(
            "expected the evaluation that speaks for the version, found one that was opened again since because its base or "
            "suite changed; look at the new one"
        )


def not_reopened() -> sa.ColumnElement[bool]:
    """Whether an evaluation still speaks for its version under its policy."""
    later = evaluation.alias("later")
    return ~sa.exists().where(later.c.root == _ROOT, later.c.reopened > _REOPENED)


def kept(c: sa.Connection, roots: Sequence[str]) -> Mapping[str, Kept]:
    """Of each of these first evaluations, how the one that speaks in its place ended, and what its verdict was signed into."""
    columns = [
        evaluation.c[name] for name in ("key", "outcome", "projected_at", "base_name", "base_digest", "suite_digest")
    ]
    of = _ROOT.label("of"), _REOPENED.label("number")
    joined = with_later(evaluation.outerjoin(verdict, verdict.c.key == evaluation.c.key))
    wanted = sa.select(*columns, *of, current("envelope")).select_from(joined).where(_of_roots(roots))
    rows = c.execute(wanted.order_by(_REOPENED, evaluation.c.created_at))
    return {row.of: _kept(row) for row in rows}


def _of_roots(roots: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.or_(evaluation.c.key.in_(roots), evaluation.c.root.in_(roots))


def _kept(row: Any) -> Kept:
    summary = json.loads(row.envelope)["summary"] if row.envelope else None
    measured = row.base_name is not None and row.base_digest is not None
    against = Against(row.base_name, row.base_digest, row.suite_digest, row.number) if measured else None
    written = row.outcome is not None and row.projected_at is not None
    return Kept(row.key, _told(row.outcome), written, summary, against)


def shown_outcome() -> sa.ColumnElement[str | None]:
    """The outcome as readers are told it."""
    return sa.case((evaluation.c.outcome == SUPERSEDED, "error"), else_=evaluation.c.outcome)


def _told(outcome: str | None) -> str | None:
    return "error" if outcome == SUPERSEDED else outcome


def _with_jobs() -> sa.Select[Any]:
    columns = [
        table.c[name].label(f"{step}_{name}")
        for step, table in _STEPS.items()
        for name in ("state", "epoch", "progress", "error")
    ]
    # Waiting for the base's profile is the only long wait, wherever it comes.
    needed_key = sa.case((_inspect.c.state == WAITING, _inspect.c.waits_for), else_=_measure.c.waits_for)
    joined = (
        evaluation.outerjoin(_inspect, _inspect.c.key == _key(INSPECT, evaluation.c.key))
        .outerjoin(_measure, _measure.c.key == _key(MEASURE, evaluation.c.evidence_key))
        .outerjoin(_needed, _needed.c.key == needed_key)
        .outerjoin(_judge, _judge.c.key == _key(JUDGE, evaluation.c.key))
    )
    return sa.select(evaluation, *columns).select_from(joined)


def _key(kind: str, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return sa.literal(f"{kind}:", sa.Text).concat(column)


def _row(row: Mapping[Any, Any]) -> EvaluationRow:
    state, step = _position(row)
    progress = row[f"{step}_progress"] if step else None
    return EvaluationRow(
        request=ledger_documents.read_document(EvaluationRequest, row["key"], row["request"]),
        state=state,
        stage=str(progress["stage"]) if progress else "",
        progress=1.0 if state == "done" else float(progress["fraction"]) if progress else 0.0,
        evidence_key=row["evidence_key"],
        outcome=_told(row["outcome"]),
        reason=row["reason"] if state == "done" or not step else row[f"{step}_error"],
        run_id=row["run_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        projected=row["projected_at"] is not None,
        narrowing=tuple(Narrowing(**each) for each in (progress or {}).get("narrowing", ())),
        trace_id=tracing.trace_id_of(row["trace"]),
    )


def _position(row: Mapping[Any, Any]) -> tuple[str, str | None]:
    """The evaluation's state, and the step whose job is at work."""
    if row["outcome"] is not None:
        return "done", None
    if row["inspect_state"] not in ENDED:
        begun = (row["inspect_epoch"] or 0) > 0
        return ("inspecting" if begun else "requested"), _at_work(row, "inspect")
    if row["judge_state"] in (QUEUED, RUNNING) or row["measure_state"] in (None, *ENDED):
        return "judging", "judge"
    return "measuring", _at_work(row, "measure")


def _at_work(row: Mapping[Any, Any], step: str) -> str:
    return "needed" if row[f"{step}_state"] == WAITING and row["needed_state"] is not None else step
