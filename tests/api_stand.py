"""The HTTP application to be tested, over a real ledger (SQLite) and a registry in memory."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from builders import a_verdict, a_version
from deliveries import CAPTURE_SECRET, Sent, delivery
from fakes import FakeClock, FakeRegistry
from fastapi.testclient import TestClient
from held_ports import free_port

from gate.adapters.metrics import Metrics
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Evidence
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.prompts import NO_PROMPTS, ChangedPrompts
from gate.domain.verdict import Outcome, Verdict

EVERYBODY = Access(None)


@dataclass
class Stand:
    """The application and everything behind it."""

    client: TestClient
    ledger: SqlLedger
    registry: FakeRegistry
    clock: FakeClock
    door: Door

    def send(self, sent: Sent) -> httpx.Response:
        return self.client.post("/webhooks/mlflow", content=sent.body, headers=sent.headers)

    def tell(self, event: str, *, id: str = "d-1", **data: object) -> httpx.Response:
        return self.send(delivery(event, data, at=self.clock(), id=id))

    def register(self, **changes: object) -> ModelVersion:
        return self.registry.add(a_version(**changes))

    def counted(self, result: str) -> float:
        return self.door.metrics.registry.get_sample_value("gate_deliveries_total", {"result": result}) or 0.0


def a_stand(tmp_path: Path, kind: type[SqlLedger] = SqlLedger, access: Access = EVERYBODY) -> Stand:
    """The application with nothing asked, nothing registered and the shipped default policy."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger, registry, clock = kind(url), FakeRegistry(), FakeClock()
    door = Door(
        ledger=ledger,
        registry=registry,
        policies=load_policies(),
        secrets=(CAPTURE_SECRET,),
        clock=clock,
        metrics=Metrics(),
        broker=lambda: None,
        max_body_bytes=10_000,
    )
    return Stand(TestClient(create_app(door, access), raise_server_exceptions=False), ledger, registry, clock, door)


def judged(
    stand: Stand,
    version: ModelVersion,
    *,
    projected: bool = True,
    evidence: Evidence | None = None,
    prompts: ChangedPrompts = NO_PROMPTS,
    **changes: object,
) -> str:
    """An ended evaluation of the version with this verdict (on this evidence), written to the registry; its key."""
    policy = stand.door.policies.policies[0]
    request = EvaluationRequest.of(version, policy.name, policy.digest)
    stand.ledger.request_evaluation(request, stand.clock())
    inspect = stand.ledger.claim(inspect_key(request.key), "w", 60, stand.clock())
    if evidence is not None:
        stand.ledger.save_evidence(inspect, evidence, stand.clock(), prompts)
        stand.ledger.note(request.key, stand.clock(), evidence_key=evidence.key)
    stand.ledger.finish(inspect, stand.clock())
    claim = stand.ledger.claim(judge_key(request.key), "w", 60, stand.clock())
    given = {"subject": version.identity, "expires_at": int(stand.clock()) + 1000, "outcome": Outcome.APPROVED}
    verdict: Verdict = a_verdict(evidence, **(given | changes))
    stand.ledger.save_verdict(claim, request.key, verdict, {"summary": {"payload": ""}}, stand.clock())
    stand.ledger.finish(claim, stand.clock())
    for item in stand.ledger.outbox(stand.clock()) if projected else ():
        if item.kind == "project":
            stand.ledger.outbox_done(item.seq, stand.clock())
    return request.key


@contextmanager
def served(stand: Stand) -> Iterator[str]:
    """The application on a loopback port of its own; the address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(stand.client.app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 300
        while not server.started:
            assert time.monotonic() < deadline, "the API did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
