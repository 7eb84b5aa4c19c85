"""Prompts whose answers changed, of the newest evaluation of a registered version."""

from fastapi import APIRouter, Request

from gate.api.door import Door, newest_of
from gate.domain.errors import NotFound
from gate.domain.prompts import ChangedPrompts, fitting

router = APIRouter(prefix="/v1/prompts", tags=["verdicts"])


# A registered model's name may hold slashes: all but the last part of the path are its name.
@router.get("/{name:path}/{version}")
def prompts_of_version(request: Request, name: str, version: str) -> ChangedPrompts:
    """Both answers to prompts that the judge took differently. Suites and models wrote these texts: show them inert."""
    door: Door = request.app.state.door
    row = newest_of(door, name, version)
    if row.outcome is None:
        raise NotFound(f"expected a verdict on {row.request.version.uri}, found it {row.state}; wait for it")
    evidence = door.ledger.evidence(row.evidence_key) if row.evidence_key else None
    return fitting(evidence, door.ledger.prompts(evidence.key)) if evidence else ChangedPrompts()
