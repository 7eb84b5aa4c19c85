"""The Celery app of the workers: ``celery -A tasks.app worker -Q cpu`` or ``-Q gpu``.

The four tasks differ in name only, so that a queue's traffic can be read; what a job is stands in the ledger.
"""

import time
from functools import lru_cache
from typing import Any

import structlog
from celery import Task
from celery.signals import setup_logging, task_failure, worker_process_init, worker_process_shutdown, worker_ready
from prometheus_client import start_http_server

from gate.adapters.celery_queue import TASK_NAMES, celery_app
from gate.adapters.database import ledger_url
from gate.adapters.logs import configure_logging
from gate.adapters.metrics import WorkerMetrics
from gate.adapters.sentinel import sentinel_of
from gate.adapters.sql_ledger import SqlLedger
from gate.adapters.tracing import start_tracing, stop_tracing
from gate.settings import settings
from tasks.running import OBSERVERS, run_job

HEARTBEAT_S = 5.0
log = structlog.get_logger(__name__)

# A spawned child knows only what it is told to import: this module again.
app = celery_app(
    settings().broker_url,
    sentinel_of(settings()),
    settings().gpu_sizes().all_queues,
    include=["tasks.app"],
    worker_soft_shutdown_timeout=settings().stop_grace_s,
)


@lru_cache(maxsize=1)
def ledger() -> SqlLedger:
    """This process's ledger."""
    return SqlLedger(ledger_url(settings().database_url, settings().state_dir))


def answer(task: Task, key: str) -> None:
    """Does a job of the queue that a doorbell rang on; the doorbell's own id tells this worker from another."""
    run_job(key, task.request.id, ledger(), settings())


def give_back(task_id: str, exception: BaseException, **_: object) -> None:
    """Gives a job back at once when the process that ran it died; its parent is told by Celery."""
    error = f"the worker process died: {exception}"
    given = ledger().abandon(task_id, time.time(), error=error, max_attempts=settings().max_attempts)
    log.error("worker process died", doorbell=task_id, given_back=given, error=str(exception))


def serve_metrics(**_: object) -> None:
    """Serves what the process that runs the jobs knows of itself, where a port is set; the ledger counts the rest."""
    if not settings().metrics_port:
        return
    OBSERVERS.append(WorkerMetrics().observe)
    try:
        start_http_server(settings().metrics_port)
    except OSError as error:
        # Two workers of one host share the setting; metrics are not worth a worker.
        log.warning("metrics not served", port=settings().metrics_port, error=str(error))


def trace_jobs(**_: object) -> None:
    """Records the jobs of this process, where an address is set."""
    start_tracing(settings().traces_endpoint, "worker")


def send_last_spans(**_: object) -> None:
    """Sends what is left: a pool's child ends without Python's own farewell."""
    stop_tracing()


def show_liveness(sender: Any, **_: object) -> None:
    """Touches the heartbeat file from the loop that takes doorbells: it grows old when that loop does not turn."""
    file = settings().heartbeat_file
    if file is not None:
        file.touch()
        sender.timer.call_repeatedly(HEARTBEAT_S, file.touch)


def log_as_json(**_: object) -> None:
    """Keeps Celery from setting up its own log format."""
    configure_logging(settings().log_level)


for name in TASK_NAMES.values():
    app.task(answer, name=name, bind=True)
task_failure.connect(give_back)
worker_process_init.connect(serve_metrics)
worker_process_init.connect(trace_jobs)
worker_process_shutdown.connect(send_last_spans)
worker_ready.connect(show_liveness)
setup_logging.connect(log_as_json)
