"""How the guard tells what it refused: to MLflow's log, and where Prometheus' client is installed there, to a counter.

``mlflow server --expose-prometheus DIR`` serves the counter at MLflow's ``/metrics``, over all of the server's processes.
"""

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import Counter

log = logging.getLogger("basin_gate.guard")


def _counter() -> "Counter | None":
    """The counter, or none: the guard installs without any extra.

    Its values get their files when first counted: while this is imported, MLflow has not made their folder yet.
    """
    try:
        from prometheus_client import Counter
    except ImportError:
        return None
    told = "Acts on the registry by answer: refused, would_refuse (the policy says dry_run or warn)."
    return Counter("gate_guard_refusals", told, ["answer"])


REFUSALS = _counter()


def tell(answer: Literal["refused", "would_refuse"], text: str, *values: object) -> None:
    """Logs a refusal and counts it."""
    log.warning(text, *values)
    # A full disk under MLflow's metrics must not turn a refusal, or what dry run lets through, into another error.
    with suppress(OSError):
        if REFUSALS is not None:
            REFUSALS.labels(answer).inc()
