"""Talking to MLflow: its many exceptions become the gate's few, and no call waits for minutes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from mlflow.exceptions import MlflowException

from gate.adapters import tracing
from gate.domain.errors import GateError, InvalidInput, NotFound, Unavailable

# MLflow's own defaults let one call retry for about four minutes. The gate has an outbox and a reconciler: it
# would rather hear "no" at once and try again later. What the operator has set stays.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.5",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
ABSENT = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_PASSING = frozenset(
    {
        "INTERNAL_ERROR",
        "TEMPORARILY_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ABORTED",
        "CANCELLED",
        "RESOURCE_CONFLICT",
    }
)


def be_impatient() -> None:
    """Shorten MLflow's timeouts and retries in this process."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Run calls to MLflow; what goes wrong is raised as `NotFound`, `Unavailable` or `InvalidInput`."""
    with tracing.span("mlflow", kind="client", call=what), _translating(what):
        yield


@contextmanager
def _translating(what: str) -> Iterator[None]:
    try:
        yield
    except GateError:
        raise
    except MlflowException as e:
        raise _kind(e.error_code)(f"{what}: MLflow said {e.error_code}: {str(e.message)[:600]}") from e
    except requests.HTTPError as e:
        status = e.response.status_code if e.response is not None else 0
        kind = NotFound if status == 404 else Unavailable if status in (0, 429) or status >= 500 else InvalidInput
        raise kind(f"{what}: MLflow answered HTTP {status}: {str(e)[:600]}") from e
    except (requests.RequestException, OSError) as e:
        raise Unavailable(f"{what}: expected MLflow to answer, found {type(e).__name__}: {str(e)[:600]}") from e


def _kind(code: str) -> type[GateError]:
    if code in ABSENT:
        return NotFound
    return Unavailable if code in _PASSING else InvalidInput
