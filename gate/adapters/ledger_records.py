"""What was found and decided: evidence, profiles, verdicts and bases, each kept as its JSON document."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_audit, ledger_evaluations, ledger_outbox, ledger_revocations, ledger_tallies
from gate.adapters.database import insert_new, put
from gate.adapters.ledger_current import current, judged, with_later
from gate.adapters.ledger_documents import DOCUMENT_SCHEMA, Document, read_document
from gate.adapters.ledger_tables import base, evaluation, evidence, profile, promotion, prompts, verdict
from gate.domain.checkpoint import Base, Frozen, ModelVersion
from gate.domain.evidence import BasinProfile, Evidence
from gate.domain.jobs import INSPECT, profile_key
from gate.domain.prompts import ChangedPrompts
from gate.domain.records import Claim
from gate.domain.revocation import overruled
from gate.domain.verdict import Verdict


def save_evidence(c: sa.Connection, claim: Claim, value: Evidence, now: float) -> None:
    """Keeps evidence; an inspection, which knows less than a measurement, never replaces what is there."""
    row = {"key": value.key, **_written(value), "saved_by": claim.key, "saved_at": now}
    if claim.kind == INSPECT:
        insert_new(c, evidence, row)
    else:
        put(c, evidence, row)


def evidence_of(c: sa.Connection, key: str) -> Evidence | None:
    """The evidence of a key."""
    return _document(c, evidence, key, Evidence)


def save_prompts(c: sa.Connection, key: str, value: ChangedPrompts) -> None:
    """Keeps the texts beside the evidence of a key; nothing where there are none."""
    if value.capabilities:
        put(c, prompts, {"key": key, **_written(value)})


def prompts_of(c: sa.Connection, key: str) -> ChangedPrompts | None:
    """The texts kept under a key."""
    return _document(c, prompts, key, ChangedPrompts)


def save_profile(c: sa.Connection, value: BasinProfile, now: float) -> None:
    """Keeps a base's profile."""
    key = profile_key(value.base_digest, value.suite_digest, value.plan_digest)
    put(c, profile, {"key": key, **_written(value), "saved_at": now})


def profile_of(c: sa.Connection, key: str) -> BasinProfile | None:
    """The profile of a key."""
    return _document(c, profile, key, BasinProfile)


def save_verdict(
    c: sa.Connection,
    key: str,
    value: Verdict,
    envelope: Mapping[str, Any],
    now: float,
    dry_run: bool,
    basin_position: float | None,
) -> None:
    """Keeps a verdict for ever and ends its evaluation; of several, the first one stands."""
    row = {"key": key, **_written(value), "envelope": json.dumps(dict(envelope)), "saved_at": now}
    if not insert_new(c, verdict, row):
        return
    figures = {"dry_run": dry_run, "basin_position": basin_position, "worst_change": value.worst_change}
    ledger_evaluations.note(c, key, now, evidence_key=value.evidence_key, base_digest=value.base_digest, **figures)
    ledger_evaluations.close(c, key, value.outcome, value.reason, now)
    detail = {"evaluation": key, "subject": value.subject, "outcome": value.outcome, "verdict": value.digest}
    ledger_audit.append(c, "verdict", "judge", detail, now)
    for rule in dict.fromkeys(finding.rule for finding in value.findings if finding.failed_open):
        ledger_audit.append(c, ledger_audit.FAILED_OPEN, "judge", {"evaluation": key, "rule": rule}, now)


def verdict_of(c: sa.Connection, key: str) -> tuple[Verdict, Mapping[str, Any]] | None:
    """An evaluation's verdict and what it was signed into; blocked where it was revoked since."""
    return _verdict(c, key, [current(name) for name in ("body", "schema", "envelope")])


def judged_of(c: sa.Connection, key: str) -> tuple[Verdict, Mapping[str, Any]] | None:
    """The same, but for a glass that was broken over it."""
    return _verdict(c, key, [judged(name).label(name) for name in ("body", "schema", "envelope")])


def show_current(c: sa.Connection, key: str, now: float) -> None:
    """The evaluation ends as the verdict does that counts now, and that is written to the registry."""
    kept = verdict_of(c, key)
    if kept is None:
        return
    # Verdicts given are counted as they were given; a count never goes down.
    ledger_tallies.count_evaluation(c, key)
    ended = {"outcome": kept[0].outcome.value, "reason": kept[0].reason, "updated_at": now}
    c.execute(sa.update(evaluation).where(evaluation.c.key == key).values(ended))
    ledger_outbox.project(c, key, now)


def _verdict(
    c: sa.Connection, key: str, columns: Sequence[sa.ColumnElement[Any]]
) -> tuple[Verdict, Mapping[str, Any]] | None:
    row = c.execute(sa.select(*columns).select_from(with_later(verdict)).where(verdict.c.key == key)).first()
    if row is None:
        return None
    given = read_document(Verdict, key, row.body, row.schema)
    revoked = ledger_revocations.revocation_of(c, given.subject, given.candidate_digest)
    return overruled(given, revoked[0] if revoked else None), json.loads(row.envelope)


def save_base(c: sa.Connection, value: Base, now: float) -> None:
    """Onboards a base, or replaces the one of that name."""
    put(c, base, {"name": value.name, **_written(value), "saved_at": now})
    ledger_audit.append(c, "base onboarded", "operator", {"base": value.name, "digest": value.digest}, now)


def bases(c: sa.Connection) -> Sequence[Base]:
    """The onboarded bases, by name."""
    rows = c.execute(sa.select(base).order_by(base.c.name))
    return [read_document(Base, row.name, row.body, row.schema) for row in rows]


def save_promotion(c: sa.Connection, alias: str, value: ModelVersion, now: float) -> None:
    """Keeps the version as the one that last held the alias with an approval."""
    row = {"name": value.name, "alias": alias, "version": value.model_dump_json(), "saved_at": now}
    put(c, promotion, row)


def promotion_of(c: sa.Connection, name: str, alias: str) -> ModelVersion | None:
    """The version that last held an alias of a registered model with an approval."""
    wanted = sa.select(promotion.c.version).where(promotion.c.name == name, promotion.c.alias == alias)
    body = c.execute(wanted).scalar()
    return None if body is None else read_document(ModelVersion, f"{name}@{alias}", body)


def _written(value: Frozen) -> dict[str, Any]:
    return {"body": value.model_dump_json(), "schema": DOCUMENT_SCHEMA}


def _document(c: sa.Connection, table: sa.Table, key: str, kind: type[Document]) -> Document | None:
    row = c.execute(sa.select(table.c.body, table.c.schema).where(table.c.key == key)).first()
    return None if row is None else read_document(kind, key, row.body, row.schema)
