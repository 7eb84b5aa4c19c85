"""The HTTP application."""

import time
from datetime import UTC, datetime
from datetime import time as dt_time
from importlib.metadata import version

from fastapi import FastAPI

from gate import bootstrap
from gate.adapters.ledger_metrics import LedgerCollector
from gate.adapters.metrics import Metrics
from gate.api import (
    admission,
    backlog,
    breaking,
    dashboard,
    evaluations,
    exports,
    policies,
    probes,
    promotions,
    prompts,
    reviews,
    sessions,
    verdicts,
    waivers,
    webhooks,
)
from gate.api.access import Access, build_access
from gate.api.door import Door
from gate.api.guard import Guard
from gate.api.problems import answer_problems
from gate.domain.errors import InvalidInput
from gate.settings import Settings


def create_app(door: Door, access: Access) -> FastAPI:
    """The application behind which this door stands, and who may come to it."""
    app = FastAPI(
        title="Basin Gate",
        version=version("basin-gate"),
        description="Receives MLflow's webhooks, tells evaluations and verdicts, answers whether a version may be promoted.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.door, app.state.access = door, access
    app.add_middleware(Guard)
    ledger, now = door.ledger, door.clock
    door.metrics.registry.register(LedgerCollector(lambda: ledger.backlog(now()), lambda: ledger.statistics(now())))
    answer_problems(app)
    for part in (
        webhooks,
        evaluations,
        verdicts,
        prompts,
        exports,
        policies,
        promotions,
        reviews,
        waivers,
        breaking,
        admission,
        backlog,
        probes,
    ):
        app.include_router(part.router)
    app.include_router(sessions.router)
    app.include_router(dashboard.router)
    app.include_router(dashboard.public)
    return app


def build_app(settings: Settings) -> FastAPI:
    """The application as the settings say."""
    secrets = settings.secrets_of_webhook()
    if not secrets:
        raise InvalidInput(
            "expected GATE_WEBHOOK_SECRETS or GATE_WEBHOOK_SECRETS_FILE, found neither; nothing would verify"
        )
    access = build_access(settings)
    bootstrap.migrate_ledger(settings)
    ledger, queue = bootstrap.build_ledger(settings), bootstrap.build_queue(settings)
    in_force, metrics = bootstrap.build_policies(settings), Metrics()
    metrics.tell_policies(policy.enforcement for policy in in_force.policies)
    if settings.signing_key_replace_by is not None:
        metrics.remind_of_key(datetime.combine(settings.signing_key_replace_by, dt_time(), UTC).timestamp())
    return create_app(
        Door(
            ledger=ledger,
            registry=bootstrap.build_registry(settings),
            policies=in_force,
            secrets=secrets,
            clock=time.time,
            metrics=metrics,
            broker=queue.ping,
            tolerance_s=settings.webhook_tolerance_s,
            max_body_bytes=settings.webhook_max_bytes,
            queues=settings.gpu_sizes().all_queues,
        ),
        access,
    )
