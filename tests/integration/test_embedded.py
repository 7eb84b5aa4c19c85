"""The embedded stack as a process tree: whichever way its starter ends, nothing of it is left."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from process_tree import processes_of

from gate.domain.errors import Unavailable
from gate.embedded import EmbeddedStack, Service

PATIENCE_S = 300.0
SERVICES = {"valkey", "mlflow", "api", "dispatcher", "cpu-worker", "gpu-worker"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")


def until(reached: Callable[[], object], what: Callable[[], object]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def logged(state: Path, service: str, text: str) -> bool:
    """Whether a service has logged this."""
    log = state / "logs" / f"{service}.log"
    return log.exists() and text in log.read_text(errors="replace")


def until_at_work(state: Path) -> None:
    """Wait until the dispatcher goes its rounds and both workers take jobs: they have children of their own then."""
    until(partial(logged, state, "dispatcher", "dispatcher started"), partial("no dispatcher in {}".format, state))
    for queue in ("cpu", "gpu"):
        until(partial(logged, state, f"{queue}-worker", " ready."), partial(f"no {queue} worker in {{}}".format, state))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``basin-gate up``, all its services at work."""
    state = tmp_path / "gate"
    ports = ("--mlflow-port", "0", "--api-port", "0")
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gate", "up", "--state", str(state), *ports], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: b"logs" in (tmp_path / "out").read_bytes(), (tmp_path / "out").read_text)
        until_at_work(state)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_starter_takes_every_process_along(up: subprocess.Popen[bytes], tmp_path: Path) -> None:
    state = tmp_path / "gate"
    assert len(processes_of(state)) >= len(SERVICES)
    up.kill()
    up.wait()
    until(lambda: not processes_of(state), lambda: processes_of(state))


def test_an_interrupted_starter_stops_everything_and_says_nothing_worse(
    up: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    up.send_signal(signal.SIGTERM)
    up.wait(PATIENCE_S)
    assert processes_of(tmp_path / "gate") == {}
    assert logged(tmp_path / "gate", "dispatcher", "dispatcher stopped")
    assert "Traceback" not in (tmp_path / "out").read_text()


def test_a_killed_broker_is_not_taken_for_ready_and_its_successor_is_stopped_too(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path / "gate")
    valkey = stack.service("valkey")
    stack.launch(valkey)
    until(valkey.ready, lambda: stack.log_tail("valkey"))
    stack.kill("valkey")
    assert stack.socket.exists()
    assert not valkey.ready()
    assert stack.dead() == []
    stack.launch(valkey)
    until(valkey.ready, lambda: stack.log_tail("valkey"))
    stack.stop()
    assert processes_of(stack.state) == {}
    assert not stack.socket.exists()


class HalfStack(EmbeddedStack):
    """A stack whose second service ends at once."""

    def services(self) -> Iterator[Service]:
        yield self._valkey()
        command = (sys.executable, "-c", "import sys; sys.exit('no such thing')")
        yield Service("broken", command, lambda: False)


def test_a_service_that_ends_while_starting_is_told_with_its_log_and_the_others_are_stopped(tmp_path: Path) -> None:
    stack = HalfStack(tmp_path / "gate")
    with pytest.raises(Unavailable, match="no such thing"):
        stack.start()
    assert processes_of(stack.state) == {}


def test_a_port_that_a_stack_chose_is_given_to_nobody_else_and_its_service_can_listen_there(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path / "gate")
    for url in (stack.mlflow_uri, stack.api_url):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        with socket.create_server(address) as service:
            assert service.getsockname() == address
    stack.stop()


def test_secrets_are_kept_from_start_to_start_for_their_owner_alone(tmp_path: Path) -> None:
    first, second = EmbeddedStack(tmp_path / "gate"), EmbeddedStack(tmp_path / "gate")
    secret = Path(first.environment["GATE_WEBHOOK_SECRETS_FILE"])
    assert secret.read_text() == Path(second.environment["GATE_WEBHOOK_SECRETS_FILE"]).read_text()
    for name in ("webhook", "signing-key.pem"):
        assert (secret.parent / name).stat().st_mode & 0o077 == 0
