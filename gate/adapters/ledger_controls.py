"""The controls by which the gate was checked, beside the evaluations and never among them."""

from collections.abc import Mapping

import sqlalchemy as sa

from gate.adapters import ledger_audit
from gate.adapters.database import insert_new
from gate.adapters.ledger_tables import control, job
from gate.domain.records import Claim
from gate.domain.selfcheck import Check, Control, ControlResult


def save(c: sa.Connection, claim: Claim, value: ControlResult, now: float) -> None:
    """Keeps what became of a control for ever; a job's first answer stands."""
    row = {
        "key": claim.key,
        "base": value.base_name,
        "policy": value.policy,
        "control": value.control,
        "outcome": value.check,
        "at": now,
        "body": value.model_dump_json(),
    }
    if insert_new(c, control, row):
        detail = {"base": value.base_digest, "policy": value.policy_digest, "control": value.control}
        ledger_audit.append(c, "gate checked", "selfcheck", detail | {"outcome": value.check}, now)


def result_of(c: sa.Connection, key: str) -> ControlResult | None:
    """What became of the control of a job."""
    body = c.execute(sa.select(control.c.body).where(control.c.key == key)).scalar()
    return None if body is None else ControlResult.model_validate_json(body)


def counts(c: sa.Connection) -> Mapping[tuple[str, str], int]:
    """How often each control came to each outcome."""
    query = sa.select(control.c.control, control.c.outcome, sa.func.count())
    return {(row[0], row[1]): row[2] for row in c.execute(query.group_by(control.c.control, control.c.outcome))}


def checked_since(c: sa.Connection, prefix: str) -> float | None:
    """The oldest of each control's newest answer; when they were first asked for where one has none."""
    ours = control.c.key.startswith(prefix, autoescape=True), control.c.outcome != Check.FAILED
    newest = sa.select(control.c.control, sa.func.max(control.c.at)).where(*ours).group_by(control.c.control)
    answered = {row[0]: row[1] for row in c.execute(newest)}
    if set(answered) >= {str(each) for each in Control}:
        return float(min(answered.values()))
    asked = sa.select(sa.func.min(job.c.created_at)).where(job.c.key.startswith(prefix, autoescape=True))
    since: float | None = c.execute(asked).scalar()
    return since
