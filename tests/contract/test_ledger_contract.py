"""What the gate asks of its ledger and queue by name is what the adapters and the workers have."""

import inspect

import pytest

from gate.adapters.celery_queue import TASK_NAMES, CeleryQueue
from gate.adapters.sql_ledger import SqlLedger
from gate.domain.jobs import KINDS, QUEUES
from gate.ports import Ledger, Queue
from tasks.app import app


def methods(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


@pytest.mark.parametrize(("protocol", "adapter"), [(Ledger, SqlLedger), (Queue, CeleryQueue)], ids=["ledger", "queue"])
def test_an_adapter_takes_and_returns_what_its_port_says(protocol: type, adapter: type) -> None:
    said = {name: inspect.signature(getattr(protocol, name)) for name in methods(protocol)}
    assert said == {name: inspect.signature(getattr(adapter, name)) for name in said}


def test_the_workers_know_every_task_name_the_gate_rings_for() -> None:
    assert set(TASK_NAMES) == set(KINDS)
    assert {name for name in app.tasks if name.startswith("gate.")} == set(TASK_NAMES.values())


def test_each_queue_has_a_route_of_its_own() -> None:
    routes = {queue.name: (queue.exchange.name, queue.routing_key) for queue in app.conf.task_queues}
    assert routes == {name: (name, name) for name in QUEUES}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("result_backend", None),
        ("task_acks_late", False),
        ("worker_cancel_long_running_tasks_on_connection_loss", False),
        ("worker_disable_prefetch", True),
        ("worker_pool_start_method", "spawn"),
        ("accept_content", ["json"]),
    ],
)
def test_the_workers_run_with_the_settings_that_keep_jobs_from_being_lost_or_doubled(
    setting: str, value: object
) -> None:
    assert app.conf[setting] == value
