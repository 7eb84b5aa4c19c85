"""What has been asked and how far it is."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from gate.api.door import Door
from gate.api.views import EvaluationsView, EvaluationView
from gate.domain.errors import NotFound

router = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])


@router.get("")
def evaluations(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
    name: str | None = None,
) -> EvaluationsView:
    """Evaluations, newest first; of one registered model where ``name`` is given."""
    door: Door = request.app.state.door
    rows = door.ledger.evaluations(limit, offset, name=name)
    return EvaluationsView(evaluations=tuple(EvaluationView.of(row) for row in rows))


@router.get("/{key}")
def evaluation(request: Request, key: str) -> EvaluationView:
    """One evaluation by its key."""
    door: Door = request.app.state.door
    row = door.ledger.evaluation(key)
    if row is None:
        raise NotFound(f"expected an evaluation with key {key}, found none")
    return EvaluationView.of(row)
