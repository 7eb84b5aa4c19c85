"""Where a registered version stands: the policy that speaks of it, what to ask, whether it may be promoted."""

from dataclasses import dataclass

from gate.adapters.policy_files import select_policy
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import NotFound
from gate.domain.evaluation import EvaluationRequest, request_for
from gate.domain.overview import EvaluationRow
from gate.domain.permission import Answer, answer
from gate.domain.policy import Policy, PolicySet
from gate.domain.promotion import Kind, mode_of
from gate.domain.reference import VersionReference
from gate.domain.verdict import Outcome, Verdict
from gate.ports import Ledger, Registry


def referenced(registry: Registry, asked: VersionReference) -> ModelVersion:
    """The version that a reference means now. Raises `NotFound`."""
    number = asked.version or registry.alias_of(asked.name, asked.alias or "")
    if number is None:
        raise NotFound(f"expected an alias {asked.alias!r} of {asked.name!r}, found none; was it set in MLflow?")
    return registry.version(asked.name, number)


@dataclass(frozen=True, slots=True)
class Position:
    """Where one version stands: the policy that speaks of it, its evaluation and verdict under that, the answer."""

    policy: Policy | None
    row: EvaluationRow | None
    verdict: Verdict | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class Standing:
    """The ledger read in the light of the policies in force."""

    ledger: Ledger
    policies: PolicySet

    def policy(self, version: ModelVersion) -> Policy | None:
        """The policy that speaks of the version."""
        return select_policy(self.policies, version)

    def policy_of(self, digest: str) -> Policy | None:
        """The policy of that digest, if it is (still) in force."""
        return next((p for p in self.policies.policies if p.digest == digest), None)

    def guards_alias(self, alias: str) -> bool:
        """Whether any policy keeps the alias for approved versions, or tells of others there."""
        return self._guards("alias", alias)

    def guards_stage(self, stage: str) -> bool:
        """Whether any policy keeps the stage for approved versions, or tells of others there."""
        return self._guards("stage", stage)

    def guards_model(self, name: str) -> bool:
        """Whether any policy keeps the registered model for copies of approved versions, or tells of others there."""
        return self._guards("model", name)

    def _guards(self, kind: Kind, place: str) -> bool:
        return any(mode_of(policy, kind, place) in ("enforce", "warn") for policy in self.policies.policies)

    def request(self, version: ModelVersion) -> EvaluationRequest | None:
        """What to ask of the version; ``None`` where it is not for the gate."""
        return request_for(version, self.policy(version), self.ledger.bases())

    def approved_until(self, version: ModelVersion, now: float) -> int | None:
        """When the approval in force of this version ends, in Unix seconds; ``None`` where it has none."""
        policy = self.policy(version)
        row = self.ledger.evaluation_of(version.identity, policy.digest) if policy else None
        kept = self.ledger.verdict(row.request.key) if row else None
        approved = kept is not None and kept[0].outcome is Outcome.APPROVED and kept[0].expires_at > now
        return kept[0].expires_at if kept is not None and approved else None

    def answer(self, version: ModelVersion, now: float) -> Answer:
        """May this version be promoted now?"""
        return self.position(version, now).answer

    def position(self, version: ModelVersion, now: float) -> Position:
        """The same answer, with what it rests on."""
        policy = self.policy(version)
        row = self.ledger.evaluation_of(version.identity, policy.digest) if policy else None
        kept = self.ledger.verdict(row.request.key) if row else None
        verdict = kept[0] if kept else None
        state, reason = (row.state, row.reason) if row else (None, None)
        return Position(policy, row, verdict, answer(policy, state, reason, verdict, now))
