"""``basin-gate doctor`` against real MLflow servers with real faults, and the API that they deliver to."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from api_stand import Stand, a_stand, served
from approvals import a_key
from deliveries import CAPTURE_SECRET
from doctor_findings import a_certificate, found, health
from held_ports import free_port
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent, WebhookStatus
from mlflow_server import MlflowServer

from gate.adapters.mlflow_registry import WEBHOOK_NAME
from gate.doctor.mlflow_server import MlflowCalls, guarded, in_time, reached, rights
from gate.doctor.service import api
from gate.doctor.webhook import WebhookExamination
from gate.domain.events import SUBSCRIPTIONS, WEBHOOK_PATH
from gate.domain.examination import Finding, Health
from gate.settings import Settings

SHIPPED = Path(__file__).parents[2] / "policies"
ADMIN, GATE = ("admin", "a long enough password"), ("gatebot", "another long password")


# -- MLflow without faults but for those that a test makes


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = a_stand(tmp_path_factory.mktemp("stand"))
    made.clock.now = time.time()
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def address(stand: Stand) -> Iterator[str]:
    with served(stand) as url:
        yield url


@pytest.fixture
def client(mlflow_server: MlflowServer) -> Iterator[MlflowClient]:
    made = MlflowClient(mlflow_server.uri, mlflow_server.uri)
    _forget(made)
    yield made
    _forget(made)


def _forget(client: MlflowClient) -> None:
    for hook in client.list_webhooks():
        client.delete_webhook(hook.webhook_id)


def hooked(client: MlflowClient, url: str, secret: str = CAPTURE_SECRET) -> None:
    """The gate's webhook as its dispatcher would make it."""
    events = [WebhookEvent.from_str(name) for name in SUBSCRIPTIONS]
    client.create_webhook(WEBHOOK_NAME, url + WEBHOOK_PATH, events, None, secret, WebhookStatus.ACTIVE)


def examination(server: MlflowServer, url: str, later_s: float = 0.0) -> dict[str, Finding]:
    settings = Settings(mlflow_tracking_uri=server.uri, public_url=url, webhook_secrets=CAPTURE_SECRET)
    return found(WebhookExamination(MlflowCalls(server.uri), settings, lambda: time.time() + later_s).examine())


def test_a_webhook_that_delivers_is_ok_and_a_young_one_is_told_to_be(mlflow_server, client, stand, address):
    stand.clock.now = time.time()
    hooked(client, address)
    young, old = examination(mlflow_server, address), examination(mlflow_server, address, later_s=120)
    assert {name: each.health for name, each in old.items()} == {
        "webhook's encryption key": Health.OK,
        "webhook's delivery": Health.OK,
    }
    assert young["webhook's cache"].health is Health.WARNING
    assert "MLFLOW_WEBHOOK_CACHE_TTL" in young["webhook's cache"].expected


def test_a_missing_webhook_is_told_and_what_tries_it_is_gone_afterwards(mlflow_server, client, stand, address):
    stand.clock.now = time.time()
    result = examination(mlflow_server, address)
    assert (result["webhook"].health, result["webhook's delivery"].health) == (Health.PROBLEM, Health.OK)
    assert list(client.list_webhooks()) == []
    assert stand.ledger.evaluations() == []


def test_another_secret_is_told_by_mlflows_own_test(mlflow_server, client, stand, address):
    stand.clock.now = time.time()
    hooked(client, address, secret="of another gate")
    result = examination(mlflow_server, address)["webhook's secret"]
    assert (result.health, "GATE_WEBHOOK_SECRETS" in result.fix) == (Health.PROBLEM, True)


def test_a_gate_whose_clock_is_far_off_is_told_by_the_delivery_too(mlflow_server, client, stand, address):
    hooked(client, address)
    stand.clock.now = time.time() + 5000
    result = examination(mlflow_server, address)["clock"]
    assert (result.health, "NTP" in result.fix) == (Health.PROBLEM, True)


def test_a_webhook_to_elsewhere_or_disabled_is_told(mlflow_server, client, stand, address):
    stand.clock.now = time.time()
    hooked(client, address)
    (hook,) = client.list_webhooks()
    client.update_webhook(hook.webhook_id, status=WebhookStatus.DISABLED)
    assert "disabled" in examination(mlflow_server, address)["webhook"].found
    client.update_webhook(
        hook.webhook_id, status=WebhookStatus.ACTIVE, events=[WebhookEvent.from_str("prompt.created")]
    )
    assert "model_version.created" in examination(mlflow_server, address)["webhook"].found
    client.update_webhook(hook.webhook_id, url="http://127.0.0.1:9/elsewhere")
    assert "one to http://127.0.0.1:9/elsewhere" in examination(mlflow_server, address)["webhook"].found


def test_a_gate_that_mlflow_cannot_reach_and_something_else_in_its_place_are_told(mlflow_server, client):
    away = f"http://127.0.0.1:{free_port()}"
    hooked(client, away)
    result = examination(mlflow_server, away)["webhook's delivery"]
    assert (result.health, "GATE_PUBLIC_URL" in result.fix) == (Health.PROBLEM, True)
    _forget(client)
    hooked(client, mlflow_server.uri)
    assert "something else" in examination(mlflow_server, mlflow_server.uri)["webhook's delivery"].fix.lower()


def test_a_certificate_of_a_private_authority_is_told(mlflow_server, client, stand, tmp_path):
    with over_https(stand, tmp_path) as url:
        hooked(client, url)
        result = examination(mlflow_server, url)["webhook's certificate"]
    assert (result.health, "certifi" in result.fix) == (Health.PROBLEM, True)


def test_clocks_that_differ_are_told_by_mlflows_date(mlflow_server):
    calls = MlflowCalls(mlflow_server.uri)
    seen = [health(in_time(calls, 600, lambda off=off: time.time() + off))["clock"] for off in (0, 60, 900, -400)]
    assert seen == [Health.OK, Health.WARNING, Health.PROBLEM, Health.PROBLEM]


def test_an_mlflow_without_the_guard_is_told_and_the_probe_leaves_nothing(mlflow_server, client):
    result = found(guarded(MlflowCalls(mlflow_server.uri), Settings(mlflow_tracking_uri=mlflow_server.uri)))
    assert (result["guard"].health, "gate+" in result["guard"].fix) == (Health.PROBLEM, True)
    assert not [m for m in client.search_registered_models() if "probe" in m.name]


def test_a_server_without_authentication_lets_the_gate_do_all_it_must(mlflow_server, client):
    name = uuid.uuid4().hex
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/a")
    assert (
        health(rights(MlflowCalls(mlflow_server.uri), Settings(mlflow_tracking_uri=mlflow_server.uri)))["rights"]
        == "ok"
    )
    version = client.get_model_version(name, "1")
    assert (version.tags, version.aliases) == ({}, [])


def test_a_server_that_is_not_there_is_told(tmp_path):
    result = found(reached(MlflowCalls(f"http://127.0.0.1:{free_port()}")))
    assert (result["MLflow"].health, "GATE_MLFLOW_TRACKING_URI" in result["MLflow"].fix) == (Health.PROBLEM, True)


# -- MLflow as it comes: nothing allowed, no key, two processes; with the guard, of another policy and key


class AsItComes(MlflowServer):
    """Two processes, MLflow's own defaults, reached under one name only."""

    anew = True

    def __init__(self, folder: Path, keys: Path) -> None:
        super().__init__(folder, registry_uri=f"gate+sqlite:///{folder}/mlflow.db", workers=2)
        for name in [name for name in self._environment if name.startswith("MLFLOW_WEBHOOK_")]:
            del self._environment[name]
        self._environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = self.uri.removeprefix("http://")
        self._environment["GATE_TRUSTED_KEYS_FILE"] = str(keys)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return a_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def as_it_comes(servers: "Servers") -> MlflowServer:
    return servers.as_it_comes


@pytest.mark.parametrize(
    ("url", "check", "fix"),
    [
        ("http://basin-gate.example.org:8500", "webhook's scheme", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https"),
        ("https://10.1.2.3:8500", "webhook's address", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true"),
        ("https://8.8.8.8:8500", "webhook's encryption key", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"),
    ],
)
def test_what_mlflow_refuses_as_it_comes_is_told_with_the_setting_that_allows_it(as_it_comes, url, check, fix):
    result = examination(as_it_comes, url)[check]
    assert (result.health, fix in result.fix) == (Health.PROBLEM, True)
    with httpx.Client(base_url=as_it_comes.uri, timeout=60) as plain:
        assert plain.get("/api/2.0/mlflow/webhooks").json() == {}


def test_a_name_that_the_server_does_not_go_by_is_told(as_it_comes):
    uri = as_it_comes.uri.replace("127.0.0.1", "localhost")
    result = found(reached(MlflowCalls(uri)))["MLflow"]
    assert (result.health, "--allowed-hosts localhost:" in result.fix) == (Health.PROBLEM, True)
    assert health(reached(MlflowCalls(as_it_comes.uri))) == {"MLflow": Health.OK, "MLflow's version": Health.OK}


def test_a_guard_is_ok_only_with_the_same_policies_and_a_key_it_trusts(as_it_comes, keys, tmp_path):
    calls = MlflowCalls(as_it_comes.uri)
    (same,) = guarded(calls, Settings(signing_key_file=keys[0]))
    assert same.health is Health.OK, same
    (other,) = guarded(calls, Settings(signing_key_file=a_key(tmp_path, "other")[0]))
    assert (other.health, "GATE_TRUSTED_KEYS_FILE" in other.fix) == (Health.PROBLEM, True)
    (policy,) = guarded(calls, Settings(policies=SHIPPED / "observe.yaml"))
    assert (policy.health, "observe" in policy.found) == (Health.PROBLEM, True)


def test_a_misspelt_scheme_of_the_guard_is_told(servers):
    result = found(reached(MlflowCalls(servers.misspelt.uri)))["MLflow"]
    assert (result.health, "gate+sqlite" in result.fix) == (Health.PROBLEM, True)


# -- MLflow with authentication


class Authenticating(MlflowServer):
    """With ``--app-name basic-auth``; everybody may read."""

    anew = True

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--app-name", "basic-auth"]


def an_authenticating_server(folder: Path) -> MlflowServer:
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests only",
        "GATE_GUARD_TAG_WRITERS": GATE[0],
    }
    return Authenticating(folder, registry_uri=f"gate+sqlite:///{folder}/mlflow.db", environment=environment)


@dataclass(frozen=True)
class Servers:
    """The servers with a fault each."""

    as_it_comes: MlflowServer
    misspelt: MlflowServer
    authenticating: MlflowServer


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Iterator[Servers]:
    """All of them, started at once, since each takes long."""
    folders = [tmp_path_factory.mktemp("mlflow") for _ in range(3)]
    made = Servers(
        AsItComes(folders[0], keys[1]),
        MlflowServer(folders[1], registry_uri=f"gates+sqlite:///{folders[1]}/mlflow.db"),
        an_authenticating_server(folders[2]),
    )
    each = (made.as_it_comes, made.misspelt, made.authenticating)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(MlflowServer.start, each))
        yield made
    finally:
        for server in each:
            server.stop()


@pytest.fixture(scope="module")
def authenticating(servers: Servers) -> MlflowServer:
    with httpx.Client(base_url=f"{servers.authenticating.uri}/api/2.0/mlflow/", auth=ADMIN, timeout=60) as admin:
        admin.post("users/create", json={"username": GATE[0], "password": GATE[1]}).raise_for_status()
        admin.post("registered-models/create", json={"name": "llm"}).raise_for_status()
        admin.post("model-versions/create", json={"name": "llm", "source": "s3://bucket/a"}).raise_for_status()
    return servers.authenticating


@pytest.fixture
def account(monkeypatch) -> Callable[[tuple[str, str]], None]:
    def use(who: tuple[str, str]) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", who[0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", who[1])

    return use


def test_an_account_that_may_not_write_is_told_what_it_lacks(authenticating, account, address):
    account(GATE)
    calls, settings = MlflowCalls(authenticating.uri), Settings(mlflow_tracking_uri=authenticating.uri)
    told = list(rights(calls, settings))
    assert {each.health for each in told} == {Health.PROBLEM}
    assert any("EDIT on its versions" in each.fix for each in told)
    assert examination(authenticating, address)["webhook"].health is Health.WARNING
    assert health(guarded(calls, settings)) == {"guard": Health.UNCHECKED}


def test_an_account_that_the_guard_lets_write_no_results_is_told(authenticating, account):
    account(ADMIN)
    told = list(rights(MlflowCalls(authenticating.uri), Settings(mlflow_tracking_uri=authenticating.uri)))
    assert [(each.health, "GATE_GUARD_TAG_WRITERS" in each.fix) for each in told] == [(Health.PROBLEM, True)]


def test_a_wrong_password_is_told(authenticating, account):
    account((GATE[0], "not this one"))
    result = found(reached(MlflowCalls(authenticating.uri)))["MLflow"]
    assert (result.health, "MLFLOW_TRACKING_PASSWORD" in result.fix) == (Health.PROBLEM, True)


def test_an_api_that_is_away_or_is_something_else_is_told(address, mlflow_server):
    urls = (address, f"http://127.0.0.1:{free_port()}", mlflow_server.uri)
    assert [health(api(url))["API"] for url in urls] == [Health.OK, Health.PROBLEM, Health.PROBLEM]


@contextmanager
def over_https(stand: Stand, folder: Path) -> Iterator[str]:
    """The API with that certificate, on a port of its own."""
    certificate_file, key_file = a_certificate(folder)
    port = free_port()
    config = uvicorn.Config(
        stand.client.app, port=port, log_level="warning", ssl_certfile=certificate_file, ssl_keyfile=key_file
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 300
    while not server.started:
        assert time.monotonic() < deadline, "the API did not start"
        time.sleep(0.02)
    yield f"https://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
