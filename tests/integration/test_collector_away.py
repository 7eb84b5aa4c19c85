"""A collector of traces that hangs or is away holds nothing up; MLflow's server is told which trace a call is of."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from api_stand import Stand, a_stand
from held_ports import free_port

from gate.adapters import tracing
from gate.adapters.mlflow_registry import MlflowRegistry
from gate.domain.errors import NotFound
from gate.domain.jobs import JUDGE
from gate.domain.records import JobRequest
from gate.settings import Settings
from tasks import running
from tasks.running import JobContext, JobDone, run_job


class Silent:
    """A server that takes requests and answers only when it is let go; it keeps their headers."""

    def __init__(self, status: int = 200, body: bytes = b"") -> None:
        self.released, self.asked = threading.Event(), threading.Event()
        self.headers: list[dict[str, str]] = []
        silent = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                silent.headers.append({name.lower(): value for name, value in self.headers.items()})
                silent.asked.set()
                silent.released.wait()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Keeps the tests' output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = a_stand(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traces of this file alone, sent at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    yield
    tracing.stop_tracing()


def judged(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> str:
    """A delivery taken in, and a job done by a worker; how the job ended."""
    monkeypatch.setitem(running.FUNCTIONS, JUDGE, lambda job: told(job))
    stand.register()
    assert stand.tell("model_version.created", name="my-llm", version="3").status_code == 202
    (row,) = stand.ledger.evaluations()
    assert row.trace_id is not None
    stand.ledger.enqueue([JobRequest("judge:done by hand", JUDGE, "gpu")], 0.0)
    return run_job("judge:done by hand", "w", stand.ledger, Settings(lease_s=30.0))


def told(job: JobContext) -> JobDone:
    job.progress("judging", 0.5)
    return JobDone()


def test_a_collector_that_hangs_holds_up_neither_a_delivery_nor_a_job_nor_an_end(
    stand: Stand, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing.start_tracing(f"{silent.url}/v1/traces", "api")
    with tracing.span("delivery", root=True):
        pass
    assert silent.asked.wait(60)
    assert judged(stand, monkeypatch) == "done"
    # More than are kept for a collector: the rest is dropped.
    for _ in range(5000):
        with tracing.span("delivery", root=True):
            pass
    tracing.stop_tracing()
    assert not silent.released.is_set()


def test_a_collector_that_is_not_there_holds_up_nothing(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing.start_tracing(f"http://127.0.0.1:{free_port()}/v1/traces", "api")
    assert judged(stand, monkeypatch) == "done"
    tracing.stop_tracing()


def test_a_call_to_mlflow_carries_the_trace_it_belongs_to(silent: Silent) -> None:
    body = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such version"}'
    mlflow = Silent(404, body)
    mlflow.released.set()
    registry = MlflowRegistry(Settings(mlflow_tracking_uri=mlflow.url))
    with pytest.raises(NotFound):
        registry.version("m", "1")
    tracing.start_tracing(f"{silent.url}/v1/traces", "worker")
    with tracing.span("inspect", root=True):
        trace = tracing.trace_id_of(tracing.carrier())
        with pytest.raises(NotFound):
            registry.version("m", "1")
    mlflow.close()
    before, within = mlflow.headers
    assert "traceparent" not in before
    assert tracing.trace_id_of(within["traceparent"]) == trace
