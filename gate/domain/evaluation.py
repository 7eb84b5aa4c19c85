"""What is asked: an evaluation of one registered version, and the key its evidence is shared by."""

from collections.abc import Iterable

from pydantic import Field

from gate.domain.checkpoint import Base, Frozen, ModelVersion, Sha256
from gate.domain.evidence import digest_json
from gate.domain.policy import Policy


def evaluation_key(identity: str, policy_digest: str) -> str:
    """The key of an evaluation: one registered version under one policy. 64 hex digits."""
    return digest_json(["evaluation", identity, policy_digest])


def evidence_key(
    candidate_digest: str, base_digest: str | None, suite_digest: str | None, plan_digest: str, policy_digest: str
) -> str:
    """The key of evidence: equal bytes measured against the same base in the same way share it."""
    return digest_json(["evidence", candidate_digest, base_digest, suite_digest, plan_digest, policy_digest])


def seed_of(key: str) -> int:
    """The seed of everything random in a measurement, from its key: asking again cannot re-roll.

    >>> seed_of("0" * 64)
    0
    """
    return int(key[:12], 16)


class Occasion(Frozen):
    """Why a version is evaluated again under the same policy: what its base is now, and ``reason``, a sentence for people.

    ``number`` counts how often it was opened again; ``base_digest`` is ``None`` where the base is no longer onboarded.
    """

    number: int = Field(ge=1)
    base: str
    base_digest: Sha256 | None
    suite_digest: Sha256 | None
    reason: str


class EvaluationRequest(Frozen):
    """One version to be evaluated under one policy; ``occasion`` says why it is evaluated once more, where it is."""

    key: Sha256
    version: ModelVersion
    policy: str
    policy_digest: Sha256
    occasion: Occasion | None = Field(default=None, exclude_if=lambda found: found is None)

    @property
    def root(self) -> str:
        """The key of the first evaluation of this version under this policy."""
        return evaluation_key(self.version.identity, self.policy_digest)

    @classmethod
    def of(cls, version: ModelVersion, policy: str, policy_digest: str) -> "EvaluationRequest":
        """The request whose key follows from the version's identity and the policy's digest."""
        return cls(
            key=evaluation_key(version.identity, policy_digest),
            version=version,
            policy=policy,
            policy_digest=policy_digest,
        )

    def again(self, occasion: Occasion) -> "EvaluationRequest":
        """The request to evaluate the same version once more: the same occasion has the same key."""
        facts = [occasion.number, occasion.base, occasion.base_digest, occasion.suite_digest]
        key = digest_json(["evaluation", self.version.identity, self.policy_digest, facts])
        return self.model_copy(update={"key": key, "occasion": occasion})


def request_for(version: ModelVersion, policy: Policy | None, bases: Iterable[Base]) -> EvaluationRequest | None:
    """What to ask of a version that exists; ``None`` for a prompt, an onboarded base, or where no policy applies.

    ``policy`` is the first that matches the version.
    """
    if policy is None or version.is_prompt or any(base.answers_to(version.uri) for base in bases):
        return None
    return EvaluationRequest.of(version, policy.name, policy.digest)
