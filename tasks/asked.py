"""What an evaluation was asked with: its row in the ledger, and the policy it was asked under."""

from gate.adapters.policy_files import load_policies
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.overview import EvaluationRow
from gate.domain.policy import Policy
from gate.ports import Ledger
from gate.settings import Settings


def asked(ledger: Ledger, key: str) -> EvaluationRow:
    """The evaluation of a key."""
    row = ledger.evaluation(key)
    if row is None:
        raise NotFound(f"expected an evaluation {key}, found none")
    return row


def policy_in_force(settings: Settings, digest: str) -> Policy:
    """The policy with that digest."""
    for policy in load_policies(settings.policies).policies:
        if policy.digest == digest:
            return policy
    raise InvalidInput(f"expected a policy with sha256 {digest[:12]}, found none: it was changed since")


def policy_of(settings: Settings, row: EvaluationRow) -> Policy:
    """The policy an evaluation was asked under; a policy changed since has its own evaluation."""
    for policy in load_policies(settings.policies).policies:
        if policy.digest == row.request.policy_digest:
            return policy
    raise InvalidInput(
        f"expected policy {row.request.policy} {row.request.policy_digest[:12]}, found it changed; "
        "the version is evaluated under the new one"
    )
