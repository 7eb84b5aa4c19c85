"""The composition root: settings in, adapters out. Nothing else in the gate chooses an adapter."""

from gate.adapters.celery_queue import CeleryQueue
from gate.adapters.database import ledger_url
from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.policy_files import load_policies
from gate.adapters.sentinel import sentinel_of
from gate.adapters.signing import DsseSigner
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import InvalidInput
from gate.domain.policy import PolicySet
from gate.settings import Settings


def migrate_ledger(settings: Settings) -> None:
    """Bring the ledger's tables to this version."""
    migrate(ledger_url(settings.database_url, settings.state_dir))


def build_ledger(settings: Settings) -> SqlLedger:
    """The ledger."""
    return SqlLedger(ledger_url(settings.database_url, settings.state_dir))


def build_registry(settings: Settings) -> MlflowRegistry:
    """The model registry."""
    return MlflowRegistry(settings)


def build_queue(settings: Settings) -> CeleryQueue:
    """The doorbell."""
    return CeleryQueue(settings.broker_url, sentinel_of(settings))


def build_policies(settings: Settings) -> PolicySet:
    """The policies in force."""
    return load_policies(settings.policies)


def build_signer(settings: Settings) -> DsseSigner:
    """What signs verdicts; without a key there is none, and nothing can be approved."""
    if settings.signing_key_file is None:
        raise InvalidInput("expected GATE_SIGNING_KEY_FILE, found none; make a key with: basin-gate keys generate PATH")
    return DsseSigner(settings.signing_key_file)
