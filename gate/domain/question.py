"""CI's question and its answer, as documents: may this version be promoted, and where to?"""

from typing import Self

from pydantic import Field, model_validator

from gate.domain.checkpoint import Frozen, Sha256
from gate.domain.permission import Decision
from gate.domain.verdict import Enforcement, Finding, Outcome, Result

PLACES = ("alias", "stage", "registered_model")
Text = Field(default=None, min_length=1)


class PromotionQuestion(Frozen):
    """May this version be promoted? At most one of ``alias``, ``stage`` and ``registered_model`` says where to."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    alias: str | None = Text
    stage: str | None = Text
    registered_model: str | None = Text

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [place for place in PLACES if getattr(self, place) is not None]
        if len(given) > 1:
            raise ValueError(f"expected at most one of {', '.join(PLACES)}, found {' and '.join(given)}")
        return self

    @property
    def uri(self) -> str:
        """The version asked about."""
        return f"models:/{self.name}/{self.version}"

    @property
    def place(self) -> str | None:
        """Where to, in words.

        >>> PromotionQuestion(name="a", version="1", alias="champion").place
        "alias 'champion'"
        """
        for place in PLACES:
            if (given := getattr(self, place)) is not None:
                return f"{place.replace('_', ' ')} {given!r}"
        return None


class Check(Frozen):
    """One rule of the policy and what came of it, without the numbers."""

    rule: str
    capability: str | None
    result: Result
    enforcement: Enforcement
    sentence: str

    @classmethod
    def of(cls, finding: Finding) -> "Check":
        """The check behind a verdict's finding."""
        return cls(**finding.model_dump(include=set(cls.model_fields)))


class PromotionAnswer(Frozen):
    """Whether, and why. ``allowed`` says the same as ``decision``, for callers that read one boolean.

    ``protected`` is whether a policy keeps the place asked for (``None`` where none was asked for): one that nothing
    protects is answered all the same, so that a misspelt alias lets nothing through. ``verdict`` is the verdict's
    digest, ``expires_at`` (Unix seconds) when it ends; ``state``, ``stage`` and ``progress`` are its evaluation's.
    ``would_refuse`` is why the registry would refuse it if the place (or the policy) were enforced and not only
    watched; it is told only where it is allowed for that.
    """

    subject: str
    place: str | None
    protected: bool | None
    decision: Decision
    allowed: bool
    reason: str
    would_refuse: str | None
    reasons: tuple[str, ...]
    outcome: Outcome | None
    policy: str | None
    evaluation: Sha256 | None
    verdict: Sha256 | None
    expires_at: int | None
    state: str | None
    stage: str | None
    progress: float | None
    run_url: str | None
    checks: tuple[Check, ...]

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.allowed != (self.decision is Decision.ALLOWED):
            raise ValueError(f"expected allowed to agree with the decision, found {self.allowed} and {self.decision}")
        if self.would_refuse is not None and not self.allowed:
            raise ValueError(f"expected would_refuse only beside allowed, found it beside {self.decision}")
        return self
