"""The queues of GPU workers by the size of their device: what the ledger, the dispatcher and the API make of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_stand import EVERYBODY, a_stand
from fakes import FakeQueue, FakeRegistry
from fastapi.testclient import TestClient
from prometheus_client.core import CollectorRegistry

from gate.adapters.ledger_metrics import LedgerCollector
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.api.app import create_app
from gate.dispatcher import Dispatcher
from gate.domain.records import JobRequest
from gate.domain.scheduling import Sharing
from gate.settings import Settings

NOW = 10_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate(url)
    ledger = SqlLedger(url)
    yield ledger
    ledger.close()


def asked(ledger: SqlLedger, **queues: str) -> None:
    """A job for each name, on the queue given."""
    ledger.enqueue([JobRequest(name, "measure", queue) for name, queue in queues.items()], NOW)


def test_a_worker_begins_only_what_its_device_holds(ledger: SqlLedger) -> None:
    asked(ledger, large="gpu-80", small="gpu-24", other="gpu-24")

    taken = [ledger.claim_next("small", f"worker {n}", 60, NOW + n, Sharing()) for n in range(3)]

    assert {claim.key for claim in taken if claim} == {"small", "other"}
    assert taken[2] is None


def test_jobs_of_a_size_that_is_gone_move_to_the_largest_and_are_rung_for_again(ledger: SqlLedger) -> None:
    asked(ledger, begun="gpu-48", left="gpu-48", kept="gpu-24", ours="cpu")
    ledger.enqueue([JobRequest("waits", "measure", "gpu-48", waits_for="left")], NOW)
    assert ledger.claim("begun", "worker", 60, NOW) is not None
    for item in ledger.outbox(NOW):
        ledger.outbox_done(item.seq, NOW)
    queue = FakeQueue()
    dispatcher = Dispatcher(
        ledger, queue, FakeRegistry(), load_policies(None), Settings(gpu_memory_gb="24,80"), clock=lambda: NOW
    )

    dispatcher.step()
    dispatcher.step()

    assert ledger.due("gpu-80", NOW) == ["left"]
    assert queue.rung == [("gpu-80", "measure", "left")]
    assert (ledger.due("gpu-24", NOW), ledger.due("cpu", NOW)) == (["kept"], ["ours"])
    assert ledger.backlog(NOW).jobs["gpu-48", "running"] == 1
    assert ledger.backlog(NOW).jobs["gpu-80", "waiting"] == 1
    assert ledger.leave_queues(("cpu", "gpu-24", "gpu-80"), "gpu-80", NOW) == 0


def test_what_failed_goes_to_the_queue_that_it_is_asked_for_on_anew(ledger: SqlLedger) -> None:
    asked(ledger, profile="gpu-24")
    claim = ledger.claim("profile", "worker", 60, NOW)
    assert claim is not None
    ledger.fail(claim, NOW, error="out of memory")

    asked(ledger, profile="gpu-80")

    assert (ledger.due("gpu-24", NOW), ledger.due("gpu-80", NOW)) == ([], ["profile"])


def test_a_queue_whose_last_worker_has_gone_is_seen_to_have_none_running(ledger: SqlLedger) -> None:
    asked(ledger, large="gpu-80")
    registry = CollectorRegistry()
    registry.register(LedgerCollector(lambda: ledger.backlog(NOW + 700), lambda: ledger.statistics(NOW + 700)))

    assert registry.get_sample_value("gate_jobs", {"queue": "gpu-80", "state": "running"}) == 0
    assert registry.get_sample_value("gate_oldest_job_seconds", {"queue": "gpu-80"}) == 700


def test_the_api_tells_the_load_of_every_size_before_anything_is_asked_for(tmp_path: Path) -> None:
    door = replace(a_stand(tmp_path).door, queues=Settings(gpu_memory_gb="24,80").gpu_sizes().all_queues)
    told = TestClient(create_app(door, EVERYBODY)).get("/v1/backlog").json()

    assert {queue: view["load"] for queue, view in told.items()} == {"cpu": 0, "gpu-24": 0, "gpu-80": 0}
