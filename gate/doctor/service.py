"""Everything that the service talks to, as checks."""

import urllib.parse
from collections.abc import Callable, Iterator

from gate.client import GateClient
from gate.doctor.mlflow_server import MlflowCalls, server_checks
from gate.doctor.stores import store_checks
from gate.doctor.webhook import WebhookExamination
from gate.domain.access import is_loopback
from gate.domain.errors import GateError, Unauthenticated
from gate.domain.examination import Check, Finding, ok, problem, unchecked, warning
from gate.settings import Settings

REACH_S = 20.0


def service_checks(settings: Settings, clock: Callable[[], float]) -> Iterator[Check]:
    """The checks of MLflow, of its webhook, of the API, the ledger and the broker."""
    calls = MlflowCalls(settings.mlflow_tracking_uri)
    yield from server_checks(calls, settings, clock)
    yield Check("webhook", WebhookExamination(calls, settings, clock).examine)
    yield Check("API", lambda: api(settings.public_url))
    yield Check("API's access", lambda: access(settings))
    yield from store_checks(settings, clock)


def access(settings: Settings) -> Iterator[Finding]:
    """An API that asks strangers for a token, and takes the one of the settings, where they have one."""
    check, url = "API's access", settings.public_url
    stranger = _refusal(GateClient(url, timeout_s=REACH_S))
    if stranger is None and not is_loopback(urllib.parse.urlsplit(url).hostname or ""):
        expected, found = f"an API at {url} that asks for a token", "one that answers whoever reaches it"
        yield warning(check, expected, found, "set GATE_TOKENS_FILE, or let only a proxy that authenticates reach it")
    elif stranger is None:
        yield ok(check, f"{url} answers without a token, to this machine alone")
    elif isinstance(stranger, Unauthenticated):
        yield ok(check, f"{url} asks for a token")
    else:
        yield unchecked(check, f"an answer of {url}", str(stranger), "see the finding on the API")
        return
    known = GateClient.of(settings, timeout_s=REACH_S)
    if settings.token_of_api() is not None and (refused := _refusal(known)) is not None:
        fix = "basin-gate token new makes another; its line belongs into the API's GATE_TOKENS_FILE"
        yield problem("API token", "a token that the API takes", str(refused), fix)


def _refusal(client: GateClient) -> GateError | None:
    """What the API answers to a reader's question, if it is no answer."""
    try:
        client.get("/v1/backlog")
    except GateError as error:
        return error
    return None


def api(url: str) -> Iterator[Finding]:
    """An API that is ready, at the address that others are told."""
    try:
        ready = GateClient(url, timeout_s=REACH_S).get("/readyz")
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
