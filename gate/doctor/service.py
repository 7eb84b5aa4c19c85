"""Everything that the service talks to, as checks."""

from collections.abc import Callable, Iterator

from gate.client import GateClient
from gate.doctor.mlflow_server import MlflowCalls, server_checks
from gate.doctor.stores import store_checks
from gate.doctor.webhook import WebhookExamination
from gate.domain.errors import GateError
from gate.domain.examination import Check, Finding, ok, problem
from gate.settings import Settings


def service_checks(settings: Settings, clock: Callable[[], float]) -> Iterator[Check]:
    """The checks of MLflow, of its webhook, of the API, the ledger and the broker."""
    calls = MlflowCalls(settings.mlflow_tracking_uri)
    yield from server_checks(calls, settings, clock)
    yield Check("webhook", WebhookExamination(calls, settings, clock).examine)
    yield Check("API", lambda: api(settings.public_url))
    yield from store_checks(settings, clock)


def api(url: str) -> Iterator[Finding]:
    """An API that is ready, at the address that others are told."""
    try:
        ready = GateClient(url, timeout_s=5).get("/readyz")
    except GateError as error:
        fix = "basin-gate api; GATE_PUBLIC_URL is the address as MLflow and people reach it, GATE_API_BIND where it listens"
        yield problem("API", f"the gate's API, ready, at {url}", str(error), fix)
        return
    if not isinstance(ready, dict) or ready.get("status") != "ready":
        fix = "set GATE_PUBLIC_URL to the gate's own address"
        yield problem("API", f"the gate's API at {url}", "something else that answers there", fix)
    elif ready.get("broker") != "ok":
        yield problem("API", "an API that reaches its broker", str(ready.get("broker")), "check its GATE_BROKER_URL")
    else:
        yield ok("API", f"{url} is ready")
