"""The MLflow server: reached, of a known version, on the same time, guarded, and letting the gate do its work."""

from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from gate.adapters.mlflow_calls import be_impatient
from gate.adapters.policy_files import load_policies
from gate.adapters.signing import DsseSigner
from gate.domain.errors import GateError, Unavailable
from gate.domain.events import FUTURE_S
from gate.domain.examination import Check, Finding, ok, problem, unchecked, warning
from gate.domain.probe import PROBE_ALIAS, PROBE_MODEL, GuardState, heard
from gate.settings import Settings

API = "/api/2.0/mlflow/"
REACH_S = 20
MADE_FOR = "3.17."
SKEW_S = 30.0
INVALID = "gate.$probe"
"""A tag key, experiment tag and alias that MLflow refuses as malformed, but only to those who may write one."""


class MlflowCalls:
    """One HTTP request at a time, with the gate's own credentials, on a connection of its own: behind one address
    there may be several server processes, and each connection may meet another."""

    def __init__(self, uri: str) -> None:
        be_impatient()
        self.uri = uri.rstrip("/")
        self._credentials = get_default_host_creds(self.uri)

    def send(self, method: str, path: str, *, limit_s: int = REACH_S, **kwargs: Any) -> requests.Response:
        """The answer, whatever its status. Raises `Unavailable` where there is none."""
        try:
            answer: requests.Response = http_request(
                self._credentials,
                path,
                method,
                max_retries=0,
                timeout=limit_s,
                raise_on_status=False,
                extra_headers={"Connection": "close"},
                **kwargs,
            )
        except (MlflowException, requests.RequestException, OSError) as error:
            raise Unavailable(f"expected MLflow at {self.uri} to answer, found: {error}") from error
        return answer

    def ask(self, method: str, endpoint: str, **kwargs: Any) -> requests.Response:
        """The same, for an endpoint of MLflow's API."""
        return self.send(method, API + endpoint, **kwargs)


def server_checks(calls: MlflowCalls, settings: Settings, clock: Callable[[], float]) -> Iterator[Check]:
    """The checks of the server itself."""
    yield Check("MLflow", lambda: reached(calls))
    yield Check("clock", lambda: in_time(calls, settings.webhook_tolerance_s, clock))
    yield Check("guard", lambda: guarded(calls, settings))
    yield Check("rights", lambda: rights(calls, settings))


def reached(calls: MlflowCalls) -> Iterator[Finding]:
    """A server whose registry answers this account under this name."""
    try:
        answer = calls.ask("GET", "registered-models/search", params={"max_results": 1})
    except Unavailable as error:
        fix = "start it; set GATE_MLFLOW_TRACKING_URI to where it is reached from here"
        yield problem("MLflow", f"an MLflow server at {calls.uri}", str(error), fix)
        return
    if answer.status_code == 200:
        yield ok("MLflow", f"{calls.uri} answers")
        yield _version(calls)
    else:
        expected, fix = _why_not(calls, answer)
        yield problem("MLflow", expected, f"HTTP {answer.status_code}: {answer.text[:300]}", fix)


def _version(calls: MlflowCalls) -> Finding:
    found = calls.send("GET", "/version").text.strip()
    if found.startswith(MADE_FOR):
        return ok("MLflow's version", found)
    fix = f"run MLflow {MADE_FOR}x, or try promotions and webhooks out before you rely on them"
    return warning("MLflow's version", f"{MADE_FOR}x", found[:40], fix)


def _why_not(calls: MlflowCalls, answer: requests.Response) -> tuple[str, str]:
    host = urlsplit(calls.uri).netloc
    if "Invalid Host header" in answer.text:
        return (
            f"a server that goes by the name {host}",
            f"start it with --allowed-hosts {host} (MLFLOW_SERVER_ALLOWED_HOSTS), or reach it by a name that it allows",
        )
    if "registry functionality is unavailable" in answer.text:
        return (
            "a server whose --registry-store-uri it can open",
            "pip install basin-gate in the MLflow server's environment; the scheme is gate+sqlite, gate+postgresql or gate+mysql",
        )
    if answer.status_code in (401, 403):
        return (
            "an account that the server knows",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) for the gate",
        )
    return "a server that lists registered models", "look into its log; is this address really MLflow's?"


def in_time(calls: MlflowCalls, tolerance_s: float, clock: Callable[[], float]) -> Iterator[Finding]:
    """MLflow's clock, by the Date header of its answers: it stamps deliveries, which are refused when too old."""
    before = clock()
    stamped = calls.send("GET", "/health").headers.get("Date")
    if stamped is None:
        yield unchecked("clock", "a Date header in MLflow's answers", "none", "let the proxy before it pass Date on")
        return
    behind = (before + clock()) / 2 - parsedate_to_datetime(stamped).timestamp()
    found = f"MLflow is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead'}"
    fix = "synchronize both hosts' clocks (NTP)"
    if behind > tolerance_s or behind < -FUTURE_S:
        expected = f"at most {tolerance_s:.0f} s behind and {FUTURE_S} s ahead: its deliveries are refused"
        yield problem("clock", expected, found, fix)
    elif abs(behind) > SKEW_S:
        yield warning("clock", f"at most {SKEW_S:.0f} s between MLflow and here", found, fix)
    else:
        yield ok("clock", f"within {SKEW_S:.0f} s of MLflow's")


def guarded(calls: MlflowCalls, settings: Settings) -> Iterator[Finding]:
    """The guard inside MLflow, and that it goes by this gate's policies and keys.

    Asked for an alias that every guard refuses, on a version that does not exist: nothing is left behind.
    """
    body = {"name": PROBE_MODEL, "alias": PROBE_ALIAS, "version": "1"}
    answer = calls.ask("POST", "registered-models/alias", json=body)
    state = heard(_message(answer))
    if state is not None:
        yield from _agreeing(state, settings)
    elif "[basin-gate]" in answer.text:
        fix = "set GATE_POLICIES and GATE_TRUSTED_KEYS_FILE on the MLflow server; until then nothing can be promoted"
        yield problem("guard", "a guard that can read its configuration", _message(answer)[:400], fix)
    elif answer.status_code == 404:
        fix = (
            "start MLflow with --registry-store-uri gate+… (the URI it has now behind it) and basin-gate installed; "
            "until then promotions are only detected, not refused"
        )
        yield problem("guard", "a guard that refuses the probe", "an MLflow without one", fix)
    else:
        fix = "examine with an account that may edit registered models; MLflow answers the guard's question to no other"
        found = f"HTTP {answer.status_code}: {answer.text[:200]}"
        yield unchecked("guard", "an answer of the guard or of the store", found, fix)


def _message(answer: requests.Response) -> str:
    """The message of an error of MLflow's, unwrapped from its JSON."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text


def _agreeing(state: GuardState, settings: Settings) -> Iterator[Finding]:
    agreed = True
    if settings.signing_key_file is not None:
        key = _key_id(settings)
        if key is not None and key not in state.keys:
            agreed = False
            trusted = ", ".join(k[:12] for k in state.keys) or "none"
            fix = "add this gate's public key to GATE_TRUSTED_KEYS_FILE on the MLflow server: its approvals are refused"
            yield problem("guard", f"a guard that trusts key {key[:12]}", f"trusted: {trusted}", fix)
    ours = {policy.name: policy.digest for policy in load_policies(settings.policies).policies}
    if dict(state.policies) != ours:
        agreed = False
        differing = sorted(name for name in {*ours, *state.policies} if ours.get(name) != state.policies.get(name))
        fix = "give the MLflow server the same policy files (GATE_POLICIES); the gate and its guard disagree"
        yield problem("guard", "a guard with this gate's policies", f"different: {', '.join(differing)}", fix)
    if agreed:
        yield ok("guard", "it is there, with the same policies")


def _key_id(settings: Settings) -> str | None:
    assert settings.signing_key_file is not None
    try:
        return DsseSigner(settings.signing_key_file).key_id
    except GateError:
        return None


def rights(calls: MlflowCalls, settings: Settings) -> Iterator[Finding]:
    """That the gate's account may write what it has to. Each write is malformed: MLflow refuses it as such to those who
    may, and as forbidden to those who may not, so that nothing is left behind."""
    version = _any_version(calls)
    if version is None:
        yield ok("rights", "nothing is registered yet that could be written to; examine again when something is")
        return
    needs: dict[str, tuple[str, Mapping[str, str], str]] = {
        "tag versions": ("model-versions/set-tag", {**version, "key": INVALID, "value": ""}, "EDIT on its versions"),
    }
    if any(policy.on_approved.alias for policy in load_policies(settings.policies).policies):
        body = {**version, "alias": INVALID}
        needs["set aliases"] = ("registered-models/alias", body, "EDIT on registered models")
    experiment = _experiment(calls, settings.mlflow_experiment)
    if experiment:
        body = {"experiment_id": experiment, "key": INVALID, "value": ""}
        needs["write runs"] = (
            "experiments/set-experiment-tag",
            body,
            f"EDIT on experiment {settings.mlflow_experiment}",
        )
    denied = [found for act, need in needs.items() if (found := _denied(calls, act, *need))]
    yield from denied or [ok("rights", f"may {', '.join(needs)}")]


def _denied(calls: MlflowCalls, act: str, endpoint: str, body: Mapping[str, str], right: str) -> Finding | None:
    answer = calls.ask("POST", endpoint, json=body)
    found = f"HTTP {answer.status_code}: {answer.text[:200]}"
    if answer.status_code == 400:
        return None
    if "[basin-gate]" in answer.text:
        fix = "add the gate's account to GATE_GUARD_TAG_WRITERS on the MLflow server"
        return problem("rights", f"an account that may {act}", found, fix)
    if answer.status_code in (401, 403):
        return problem("rights", f"an account that may {act}", found, f"grant the gate's MLflow account {right}")
    return unchecked("rights", f"an answer to whether it may {act}", found, "look into MLflow's log")


def _any_version(calls: MlflowCalls) -> dict[str, str] | None:
    answer = calls.ask("GET", "model-versions/search", params={"max_results": 1})
    if answer.status_code != 200:
        raise Unavailable(f"expected a list of versions from MLflow, found HTTP {answer.status_code}")
    found = answer.json().get("model_versions") or []
    return {"name": found[0]["name"], "version": str(found[0]["version"])} if found else None


def _experiment(calls: MlflowCalls, name: str) -> str | None:
    answer = calls.ask("GET", "experiments/get-by-name", params={"experiment_name": name})
    return str(answer.json()["experiment"]["experiment_id"]) if answer.status_code == 200 else None
