"""CI's question: may this version be promoted? The status is the answer, so `curl --fail` is enough."""

from fastapi import APIRouter, Request, Response

from gate.api.door import Door
from gate.api.views import PromotionQuestion
from gate.domain.permission import Answer

router = APIRouter(prefix="/v1/promotions", tags=["promotions"])


@router.post(
    "", responses={403: {"model": Answer, "description": "It may not be promoted; the reason is in the body."}}
)
def promotions(request: Request, response: Response, asked: PromotionQuestion) -> Answer:
    """200 if the version may be promoted now, 403 with the reason if not."""
    door: Door = request.app.state.door
    given = door.standing.answer(door.registry.version(asked.name, asked.version), door.clock())
    door.metrics.promotion_questions.labels("allow" if given.allowed else "deny").inc()
    response.status_code = 200 if given.allowed else 403
    return given
