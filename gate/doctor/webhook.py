"""MLflow's webhook: there, deliverable, signed with the right secret, and readable by every server process."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from gate.adapters.mlflow_registry import WEBHOOK_NAME
from gate.doctor.mlflow_server import MlflowCalls
from gate.domain.errors import Unavailable
from gate.domain.events import SUBSCRIPTIONS, WEBHOOK_PATH
from gate.domain.examination import Finding, ok, problem, unchecked, warning
from gate.settings import Settings

READINGS = 48
"""How often the webhooks are listed: with four server processes that take turns, one that cannot read them escapes hardly ever."""
AT_ONCE = 12
"""Readings under way together: one after another they may all go to the one process that is awake."""
REMOVALS = 80
FORBIDDEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
CACHE_S = 60.0
TEST_S = 25
QUIET_EVENT = {"entity": "BUDGET_POLICY", "action": "EXCEEDED"}
"""What the throw-away webhook subscribes to: an event that the gate ignores, and that hardly ever happens."""
KEY_FIX = (
    "set MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY on the MLflow server, the same for every process and start, and make the "
    'webhooks with a secret anew; a key: python -c "from cryptography.fernet import Fernet; '
    'print(Fernet.generate_key().decode())"'
)
NETWORK = ("NameResolution", "Connection refused", "ConnectTimeout", "NewConnectionError", "Max retries", "Timeout")


@dataclass(frozen=True, slots=True)
class WebhookExamination:
    """Examines the gate's webhook by MLflow's own test of it; where there is none yet, a throw-away one."""

    calls: MlflowCalls
    settings: Settings
    clock: Callable[[], float]

    @property
    def url(self) -> str:
        """Where MLflow is to deliver."""
        return self.settings.public_url.rstrip("/") + WEBHOOK_PATH

    def examine(self) -> Iterator[Finding]:
        """The findings, in the order in which one thing needs the other."""
        listed = self._listings()
        if listed[-1].status_code in FORBIDDEN:
            fix = "examine as an administrator; have one make the webhook once, as the guide to connecting MLflow says"
            yield warning("webhook", "an account that may manage webhooks", _shown(listed[-1]), fix)
            return
        if any(answer.status_code != HTTPStatus.OK for answer in listed):
            yield self._unreadable(listed)
            return
        mine = next((h for h in listed[0].json().get("webhooks", ()) if h["name"] == WEBHOOK_NAME), None)
        yield from self._of(mine) if mine else self._missing()

    def _listings(self) -> list[requests.Response]:
        first = self._listing()
        if first.status_code in FORBIDDEN:
            return [first]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return [first, *threads.map(lambda _: self._listing(), range(READINGS - 1))]

    def _listing(self) -> requests.Response:
        return self.calls.ask("GET", "webhooks", params={"max_results": 1000})

    def _unreadable(self, listed: list[requests.Response]) -> Finding:
        failed = [answer for answer in listed if answer.status_code != HTTPStatus.OK]
        expected = "webhooks that every server process can read, each time"
        found = f"{len(failed)} of {len(listed)} readings failed: {_shown(failed[0])}"
        return problem("webhook's encryption key", expected, found, KEY_FIX)

    def _of(self, mine: Mapping[str, Any]) -> Iterator[Finding]:
        yield ok("webhook's encryption key", f"{READINGS} of {READINGS} readings of the webhook's secret succeeded")
        if (wrong := self._difference(mine)) is not None:
            fix = "restart the dispatcher, which repairs it at its next sweep; is the same GATE_PUBLIC_URL set there?"
            yield problem("webhook", f"{WEBHOOK_NAME}, active, for the gate's events, to {self.url}", wrong, fix)
        age = self.clock() - int(mine["last_updated_timestamp"]) / 1000
        if 0 <= age < CACHE_S:
            fix = f"wait until {CACHE_S:.0f} s have passed; the reconciler finds what was registered meanwhile"
            expected = f"a webhook that MLflow's processes know (MLFLOW_WEBHOOK_CACHE_TTL, {CACHE_S:.0f} s)"
            yield warning("webhook's cache", expected, f"it was made or changed {age:.0f} s ago", fix)
        yield self._tested(mine["webhook_id"])

    def _difference(self, mine: Mapping[str, Any]) -> str | None:
        events = {f"{e['entity']}.{e['action']}".lower() for e in mine.get("events", ())}
        if mine["url"] != self.url:
            return f"one to {mine['url']}"
        if mine.get("status", "ACTIVE") != "ACTIVE":
            return f"one that is {mine['status'].lower()}"
        missing = sorted(set(SUBSCRIPTIONS) - events)
        return f"one that does not tell {', '.join(missing)}" if missing else None

    def _missing(self) -> Iterator[Finding]:
        fix = "start the dispatcher with an MLflow administrator's account, or have an administrator make it once"
        yield problem("webhook", f"MLflow's webhook {WEBHOOK_NAME}", "none: MLflow tells this gate nothing", fix)
        given = self.settings.secrets_of_webhook()
        if not given:
            fix = "set GATE_WEBHOOK_SECRETS or GATE_WEBHOOK_SECRETS_FILE"
            yield problem("webhook's secret", "a webhook secret", "none: nothing would verify", fix)
            return
        with self._throw_away(given[0]) as made:
            if made.status_code != HTTPStatus.OK:
                yield self._refused(made)
                return
            listed = self._listings()
            if any(answer.status_code != HTTPStatus.OK for answer in listed):
                yield self._unreadable(listed)
            else:
                yield ok("webhook's encryption key", f"{READINGS} of {READINGS} readings of a secret succeeded")
                yield self._tested(made.json()["webhook"]["webhook_id"])

    @contextmanager
    def _throw_away(self, secret: str) -> Iterator[requests.Response]:
        """A webhook like the gate's that is gone afterwards, and that nothing but a test ever fires."""
        body = {
            "name": f"{WEBHOOK_NAME}-doctor-{secrets.token_hex(4)}",
            "url": self.url,
            "events": [QUIET_EVENT],
            "secret": secret,
            "status": "ACTIVE",
        }
        made = self.calls.ask("POST", "webhooks", json=body)
        try:
            yield made
        finally:
            if made.status_code == HTTPStatus.OK:
                self._remove(made.json()["webhook"]["webhook_id"], str(body["name"]))

    def _remove(self, webhook_id: str, name: str) -> None:
        # A process with another encryption key cannot even delete it: ask until one can.
        for _ in range(REMOVALS):
            if self.calls.ask("DELETE", f"webhooks/{webhook_id}").status_code in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                return
        raise Unavailable(
            f"expected to remove the throw-away webhook {name!r}, found MLflow unable to; delete it by hand"
        )

    def _refused(self, answer: requests.Response) -> Finding:
        said = _shown(answer)
        if "scheme" in said:
            fix = "MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https on the MLflow server, or https in GATE_PUBLIC_URL"
            return problem("webhook's scheme", f"a server that delivers to {self.url}", said, fix)
        if "non-public IP" in said:
            fix = "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true on the MLflow server"
            return problem("webhook's address", f"a server that delivers to {self.url}", said, fix)
        if answer.status_code in FORBIDDEN:
            fix = "have an MLflow administrator make the webhook once"
            return warning("webhook", "an account that may make webhooks", said, fix)
        fix = "is GATE_PUBLIC_URL an address that MLflow can resolve?"
        return problem("webhook's address", f"a server that delivers to {self.url}", said, fix)

    def _tested(self, webhook_id: str) -> Finding:
        name, expected = "webhook's delivery", f"MLflow's own test of it to reach {self.url}"
        try:
            answer = self.calls.ask("POST", f"webhooks/{webhook_id}/test", json={}, limit_s=TEST_S)
        except Unavailable as error:
            fix = "let MLflow's host reach the gate: a firewall that drops packets makes deliveries hang"
            return problem(name, expected, str(error), fix)
        if answer.status_code != HTTPStatus.OK:
            return unchecked(name, expected, _shown(answer), "look into MLflow's log")
        return self._judged(name, expected, answer.json().get("result", {}))

    def _judged(self, name: str, expected: str, result: Mapping[str, Any]) -> Finding:
        status, said = result.get("response_status"), str(result.get("response_body") or "")[:300]
        failed = str(result.get("error_message") or "")[:400]
        if status == HTTPStatus.OK or status == HTTPStatus.NO_CONTENT:
            return ok(name, f"MLflow reached {self.url}, signed with the gate's secret")
        if status == HTTPStatus.UNAUTHORIZED and "timestamp" in said:
            return problem("clock", expected, said, "synchronize both hosts' clocks (NTP)")
        if status == HTTPStatus.UNAUTHORIZED:
            fix = (
                "give the gate the secret that the webhook was made with (GATE_WEBHOOK_SECRETS), or restart the "
                "dispatcher, which sets the webhook's to the gate's first"
            )
            return problem("webhook's secret", "a signature made with one of the gate's secrets", said, fix)
        if "CERTIFICATE_VERIFY_FAILED" in failed:
            fix = (
                "MLflow takes only certificates of public authorities here (certifi's; REQUESTS_CA_BUNDLE is ignored): "
                "use such a one, append your authority to certifi's cacert.pem, or http inside the cluster"
            )
            return problem("webhook's certificate", expected, failed, fix)
        if "non-public IP" in failed:
            fix = "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true on the MLflow server"
            return problem("webhook's address", expected, failed, fix)
        if any(word in failed for word in NETWORK):
            fix = "set GATE_PUBLIC_URL to an address that MLflow's host reaches, and start the API"
            return problem(name, expected, failed, fix)
        fix = "is GATE_PUBLIC_URL the gate's own address? Something else seems to answer there"
        return problem(name, expected, failed or f"HTTP {status}: {said}", fix)


def _shown(answer: requests.Response) -> str:
    try:
        return f"HTTP {answer.status_code}: {answer.json()['message'][:300]}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text[:200]}"
