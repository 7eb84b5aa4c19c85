"""Asking whether a version may be promoted, once or until there is an answer."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from gate.client import GateClient
from gate.domain.errors import Forbidden, Unavailable
from gate.domain.permission import Decision
from gate.domain.question import PromotionAnswer, PromotionQuestion

POLL_S = 2.0
OUTAGE_PATIENCE_S = 60.0
"""How long, while waiting, the gate may be away at a stretch: a restart, not a wrong address."""

Tell = Callable[[PromotionAnswer], None]


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one gate; time can be given for tests."""

    client: GateClient
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def ask(self, question: PromotionQuestion) -> PromotionAnswer:
        """The answer now. Raises `Unavailable` for whatever is not one."""
        asked = question.model_dump(exclude_none=True)
        status, document = self.client.post("/v1/promotions", asked, also=frozenset({403}))
        if status == 403 and isinstance(document, dict) and "allowed" not in document:
            # No answer, but a refusal of the one who asks.
            raise Forbidden(f"{self.client.url} refuses the question: {document.get('detail', 'it does not say why')}")
        try:
            answer = PromotionAnswer.model_validate_json(json.dumps(document), strict=True)
        except ValidationError as error:
            raise Unavailable(
                f"expected an answer of the gate from {self.client.url}, found another document "
                f"({error.error_count()} differences); are both of the same version?"
            ) from error
        if answer.subject != question.uri or answer.place != question.place or (status == 200) != answer.allowed:
            raise Unavailable(
                f"expected an answer on {question.uri} whose status agrees with it, found status {status} and "
                f"{answer.decision} on {answer.subject}"
            )
        return answer

    def wait(self, question: PromotionQuestion, timeout_s: float, tell: Tell) -> PromotionAnswer:
        """The first answer that is not pending; ``tell`` hears of each. Raises `Unavailable` when time is up."""
        deadline = self.clock() + timeout_s
        heard = self.clock()
        while True:
            why = "no answer"
            try:
                answer = self.ask(question)
            except Unavailable as error:
                if self.clock() - heard > OUTAGE_PATIENCE_S or self.clock() >= deadline:
                    raise
                why = str(error)
            else:
                heard, why = self.clock(), answer.reason
                if answer.decision is not Decision.PENDING:
                    return answer
                tell(answer)
            if self.clock() >= deadline:
                raise Unavailable(f"expected a decision on {question.uri} within {timeout_s:.0f} s, found: {why}")
            self.sleep(min(POLL_S, max(0.0, deadline - self.clock())))
