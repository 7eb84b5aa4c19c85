"""The composition root: settings in, adapters out. Nothing else in the gate chooses an adapter.

Each adapter is imported when it is built: MLflow's client alone takes two seconds, and most commands need no registry.
"""

from typing import TYPE_CHECKING

from gate.domain.errors import InvalidInput
from gate.domain.policy import PolicySet
from gate.settings import Settings

if TYPE_CHECKING:
    from gate.adapters.celery_queue import CeleryQueue
    from gate.adapters.mlflow_registry import MlflowRegistry
    from gate.adapters.signing import DsseSigner
    from gate.adapters.sql_ledger import SqlLedger


def migrate_ledger(settings: Settings) -> None:
    """Bring the ledger's tables to this version."""
    from gate.adapters.database import ledger_url
    from gate.adapters.sql_ledger import migrate

    migrate(ledger_url(settings.database_url, settings.state_dir))


def build_ledger(settings: Settings) -> "SqlLedger":
    """The ledger."""
    from gate.adapters.database import ledger_url
    from gate.adapters.sql_ledger import SqlLedger

    return SqlLedger(ledger_url(settings.database_url, settings.state_dir))


def build_registry(settings: Settings) -> "MlflowRegistry":
    """The model registry."""
    from gate.adapters.mlflow_registry import MlflowRegistry

    return MlflowRegistry(settings)


def build_queue(settings: Settings) -> "CeleryQueue":
    """The doorbell."""
    from gate.adapters.celery_queue import CeleryQueue
    from gate.adapters.sentinel import sentinel_of

    return CeleryQueue(settings.broker_url, sentinel_of(settings), settings.gpu_sizes().all_queues)


def build_policies(settings: Settings) -> PolicySet:
    """The policies in force."""
    from gate.adapters.policy_files import load_policies

    return load_policies(settings.policies)


def build_signer(settings: Settings) -> "DsseSigner":
    """What signs verdicts; without a key there is none, and nothing can be approved."""
    from gate.adapters.keyless import KeylessSigner
    from gate.adapters.signing import DsseSigner

    if settings.signing_key_file is None:
        raise InvalidInput("expected GATE_SIGNING_KEY_FILE, found none; make a key with: basin-gate keys generate PATH")
    keyless = KeylessSigner(settings.sigstore, settings.sigstore_token_file) if settings.sigstore else None
    return DsseSigner(settings.signing_key_file, keyless)
