"""Verdicts in other people's forms: a CycloneDX bill of materials, a section of a model card."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response

from gate.api.door import Door, newest_of
from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.errors import NotFound
from gate.domain.evidence import Evidence
from gate.domain.export import Format
from gate.domain.verdict import Verdict
from gate.pages import bom, model_card

router = APIRouter(prefix="/v1/exports", tags=["exports"])
Form = Callable[[ModelVersion, Verdict, Evidence, Base | None, str | None], bytes]


FORMS: Mapping[Format, tuple[str, Form]] = {
    Format.CYCLONEDX: (bom.MEDIA_TYPE, bom.bill_of_materials),
    Format.MODEL_CARD: (
        model_card.MEDIA_TYPE,
        lambda version, verdict, evidence, _, url: model_card.model_card(version, verdict, evidence, url),
    ),
}


# A registered model's name may hold slashes: all but the last part of the path are its name.
@router.get("/{format}/{name:path}/{version}", response_class=Response)
def export(request: Request, format: Format, name: str, version: str) -> Response:
    """The verdict of the newest evaluation of a registered version: `cyclonedx` (an ML-BOM, CycloneDX 1.6) or
    `model-card` (a section in Markdown)."""
    door: Door = request.app.state.door
    row = newest_of(door, name, version)
    kept = door.ledger.verdict(row.request.key)
    evidence = door.ledger.evidence(row.evidence_key) if row.evidence_key else None
    if kept is None or evidence is None:
        lacking = "a verdict" if kept is None else "evidence"
        raise NotFound(f"expected {lacking} on {row.request.version.uri}, found none (evaluation {row.state})")
    media_type, form = FORMS[format]
    url = door.registry.run_url(row.run_id) if row.run_id else None
    base = bom.base_of(evidence, door.ledger.bases())
    judged = evidence.model_copy(update={"errors": kept[0].errors})
    return Response(form(row.request.version, kept[0], judged, base, url), media_type=media_type)
