"""Verdicts, by evaluation or by registered version."""

from fastapi import APIRouter, Request

from gate.api.door import Door, newest_of
from gate.api.views import EvaluationView, VerdictView
from gate.domain.errors import NotFound
from gate.domain.overview import EvaluationRow

router = APIRouter(prefix="/v1/verdicts", tags=["verdicts"])


@router.get("/{key}")
def verdict(request: Request, key: str) -> VerdictView:
    """The verdict of an evaluation."""
    door: Door = request.app.state.door
    row = door.ledger.evaluation(key)
    if row is None:
        raise NotFound(f"expected an evaluation with key {key}, found none")
    return _view(door, row)


# A registered model's name may hold slashes: all but the last part of the path are its name.
@router.get("/{name:path}/{version}")
def verdict_of_version(request: Request, name: str, version: str) -> VerdictView:
    """The verdict of the newest evaluation of a registered version."""
    door: Door = request.app.state.door
    return _view(door, newest_of(door, name, version))


def _view(door: Door, row: EvaluationRow) -> VerdictView:
    kept = door.ledger.verdict(row.request.key)
    if kept is None:
        found = row.reason if row.state == "done" else f"its evaluation is {row.state} ({100 * row.progress:.0f} %)"
        raise NotFound(f"expected a verdict on {row.request.version.uri}, found none: {found}")
    return VerdictView(evaluation=EvaluationView.of(row), verdict=kept[0], attestations=kept[1])
