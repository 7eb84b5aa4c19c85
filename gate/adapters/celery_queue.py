"""Doorbells over Celery: a message carries a job's key and nothing else; the ledger holds the rest.

The broker may lose or double any message, or be wiped: the worker claims the job in the ledger, and the ledger's
sweep rings again. So there is no result backend and no late acknowledgement, whose visibility timeout would start
a long measurement twice.
"""

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Exchange
from kombu import Queue as BrokerQueue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from gate.adapters.sentinel import Sentinel
from gate.domain.errors import InvalidInput, Unavailable
from gate.domain.jobs import INSPECT, JUDGE, KINDS, MEASURE, PROFILE, QUEUES

INSPECT_TASK = f"gate.{INSPECT}"
PROFILE_TASK = f"gate.{PROFILE}"
MEASURE_TASK = f"gate.{MEASURE}"
JUDGE_TASK = f"gate.{JUDGE}"
TASK_NAMES = {kind: f"gate.{kind}" for kind in KINDS}

_TRANSPORT: dict[str, Any] = {
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 15,
    "global_keyprefix": "gate:",
    "unacked_restore_throttle": 1,
}

CONFIG: dict[str, Any] = {
    "task_ignore_result": True,
    "result_backend": None,
    "task_acks_late": False,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_create_missing_queues": False,
    "task_default_queue": QUEUES[0],
    # One job at a time and none held back: an idle worker must find what a busy one has not begun.
    "worker_concurrency": 1,
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    # A CUDA context does not survive a fork.
    "worker_pool": "prefork",
    "worker_pool_start_method": "spawn",
    # A spawned child imports torch before it answers; Celery's default is 4 s.
    "worker_proc_alive_timeout": 120,
    "worker_max_tasks_per_child": None,
    # Celery 5.7 loses the job when it cancels on connection loss; 6.0 means to do so by default.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": _TRANSPORT,
}

_RING_TIMEOUT_S = 3


def celery_app(
    broker_url: str, sentinel: Sentinel | None = None, queues: Sequence[str] = QUEUES, **changes: Any
) -> Celery:
    """A Celery app with the product's one configuration, for these queues."""
    app = Celery("basin-gate", broker=broker_url, set_as_current=False)
    known = [BrokerQueue(name, Exchange(name), routing_key=name) for name in queues]
    given = CONFIG | {"task_queues": known} | changes
    if sentinel is not None:
        options = given["broker_transport_options"]
        watched = sentinel.transport(options["socket_connect_timeout"])
        given |= {**sentinel.celery(), "broker_transport_options": options | watched}
    app.conf.update(given)
    return app


class CeleryQueue:
    """Implements ``gate.ports.Queue``; a broker that does not answer is noticed within seconds."""

    def __init__(self, broker_url: str, sentinel: Sentinel | None = None, queues: Sequence[str] = QUEUES) -> None:
        self._queues = tuple(queues)
        quick = _TRANSPORT | {
            "socket_timeout": _RING_TIMEOUT_S,
            "socket_connect_timeout": _RING_TIMEOUT_S,
            "max_retries": 0,
        }
        self._app = celery_app(
            broker_url, sentinel, queues, broker_transport_options=quick, broker_connection_timeout=_RING_TIMEOUT_S
        )

    def ring(self, queue: str, kind: str, key: str) -> None:
        """Sends a doorbell; ``Unavailable`` where the broker did not take it."""
        if kind not in TASK_NAMES or queue not in self._queues:
            raise InvalidInput(
                f"doorbell for {key}: expected a kind of {KINDS} and a queue of {self._queues}, found {kind!r} and "
                f"{queue!r}; is GATE_GPU_MEMORY_GB the same for every process?"
            )
        try:
            self._app.send_task(TASK_NAMES[kind], args=[key], queue=queue, retry=False)
        except (KombuError, RedisError, OSError) as error:
            raise Unavailable(f"the broker did not take the doorbell of {key}: {error}; is it up?") from error

    def silence(self, queue: str) -> None:
        """Takes down every doorbell of a queue; ``Unavailable`` where the broker does not answer."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=_RING_TIMEOUT_S)
                connection.default_channel.queue_purge(queue)
        except (KombuError, RedisError, OSError) as error:
            raise Unavailable(f"the broker does not answer: {error}; is it up?") from error

    def ping(self) -> None:
        """Returns if the broker answers, else raises ``Unavailable``."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=_RING_TIMEOUT_S)
        except (KombuError, RedisError, OSError) as error:
            raise Unavailable(f"the broker does not answer: {error}; is it up?") from error

    def close(self) -> None:
        """Closes the connections to the broker."""
        self._app.close()
