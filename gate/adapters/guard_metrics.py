"""How the guard tells what it refused: to MLflow's log, and where Prometheus' client is installed there, to a counter.

``mlflow server --expose-prometheus DIR`` serves the counter at MLflow's ``/metrics``, over all of the server's processes.
"""

import logging
from contextlib import suppress
from typing import Literal

try:
    import prometheus_client
except ImportError:  # the guard installs without any extra
    prometheus_client = None  # type: ignore[assignment]  # no type says: a module, or nothing

log = logging.getLogger("basin_gate.guard")

# Its values get their files when first counted: while this is imported, MLflow has not made their folder yet.
REFUSALS = prometheus_client and prometheus_client.Counter(
    "gate_guard_refusals",
    "Acts on the registry by answer: refused, would_refuse (the policy says dry_run or warn).",
    ["answer"],
)


def tell(answer: Literal["refused", "would_refuse"], text: str, *values: object) -> None:
    """Logs a refusal and counts it."""
    log.warning(text, *values)
    # A full disk under MLflow's metrics must not turn a refusal, or what dry run lets through, into another error.
    with suppress(OSError):
        if REFUSALS is not None:
            REFUSALS.labels(answer).inc()
