"""A broken glass: that somebody on call let a version be promoted now, against its verdict, for hours, and signed for it.

Who may do so, and of which verdicts, is for ``gate.domain.breaking``.
"""

from pydantic import Field, model_validator

from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.evidence import digest_json

REASON_CHARACTERS = 600
NAME_CHARACTERS = 200


class BrokenGlass(Frozen):
    """Who broke the glass over the verdict with that digest, why, where it is followed, and for how long.

    Times are Unix seconds. By ``review_by`` somebody else has to have said whether it was right.
    """

    by: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    reason: str = Field(min_length=1, max_length=REASON_CHARACTERS)
    ticket: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    at: int
    expires_at: int
    review_by: int
    verdict_digest: Sha256

    @model_validator(mode="after")
    def _ordered(self) -> "BrokenGlass":
        if min(self.expires_at, self.review_by) <= self.at:
            raise ValueError("expires_at and review_by: expected times after at, found one that is not")
        return self

    @property
    def digest(self) -> str:
        """sha256 of its canonical JSON: what a review of it speaks of."""
        return digest_json(self.model_dump(mode="json"))
