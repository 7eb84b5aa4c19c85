"""The dispatcher: what the ledger wants done outside is done here, and the registry is compared with it.

One process is at work at a time, by a lease in the ledger; more may stand by.
"""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable

import structlog

from gate.adapters import tracing
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.standing import Standing
from gate.dispatcher.notifying import Notifier
from gate.dispatcher.projection import Projector
from gate.dispatcher.reconciler import Reconciler
from gate.dispatcher.selfchecks import Selfchecks
from gate.domain.errors import GateError, InvalidInput
from gate.domain.policy import PolicySet
from gate.domain.records import OutboxItem
from gate.ports import Ledger, Queue, Registry
from gate.settings import Settings

LEADERSHIP = "dispatcher"
IDLE_S = 0.2
SWEEP_EVERY_S = 2.0
RETRY_S = 2.0
LONGEST_RETRY_S = 60.0
log = structlog.get_logger(__name__)


class Dispatcher:
    """Drains the outbox, sweeps the ledger, reconciles with the registry; survives whatever does not answer."""

    def __init__(
        self,
        ledger: Ledger,
        queue: Queue,
        registry: Registry,
        policies: PolicySet,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        metrics: DispatcherMetrics | None = None,
    ) -> None:
        self._ledger, self._queue, self._settings, self._clock = ledger, queue, settings, clock
        self._metrics = metrics or DispatcherMetrics()
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._sizes = settings.gpu_sizes()
        standing = Standing(ledger, policies)
        self._projector = Projector(standing, registry, clock)
        self._reconciler = Reconciler(standing, registry, settings, clock, self._metrics)
        self._notifier = Notifier(ledger, policies, settings.channels_file, clock, self._metrics)
        self._selfchecks = Selfchecks(ledger, policies, settings.selfcheck_every_s, self._sizes)
        self._failures: dict[int, int] = {}
        self._leader_until = 0.0
        self._next_sweep = 0.0
        self._next_reconcile = 0.0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; what is begun is finished first."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self._serve_metrics()
        log.info("dispatcher started", owner=self._owner)
        while not stop.is_set():
            if self._settings.heartbeat_file is not None:
                self._settings.heartbeat_file.touch()
            stop.wait(IDLE_S if self._survive(self.step) is not None else RETRY_S)
        self._survive(self.hand_over)
        self._notifier.close()
        log.info("dispatcher stopped", owner=self._owner)

    def hand_over(self) -> int:
        """Let another dispatcher lead at once, not when this one's lease ends; always 0, as nothing is done by it."""
        now = self._clock()
        if now < self._leader_until:
            self._leader_until = 0.0
            self._ledger.acquire_leader(LEADERSHIP, self._owner, 0.0, now)
        return 0

    def _serve_metrics(self) -> None:
        if self._settings.metrics_port:
            from prometheus_client import start_http_server

            start_http_server(self._settings.metrics_port, registry=self._metrics.registry)

    def step(self) -> int:
        """Do all that is due now; how many outbox items were done. Nothing where another dispatcher leads."""
        if not self._leads():
            return 0
        done = self._drain()
        self._notifier.begin()
        now = self._clock()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY_S
            self._sweep(now)
            self._selfchecks.look(now)
            self._notifier.look(now)
        if now >= self._next_reconcile:
            self._next_reconcile = now + self._settings.reconcile_every_s
            if not self._reconciler.reconcile():
                self._next_reconcile = now + min(RETRY_S, self._settings.reconcile_every_s)
        return done

    def _leads(self) -> bool:
        """Whether this process leads; the lease is renewed when a third of it has gone, not at every step."""
        now, lease_s = self._clock(), self._settings.lease_s
        if now >= self._leader_until - 2 * lease_s / 3:
            held = self._ledger.acquire_leader(LEADERSHIP, self._owner, lease_s, now)
            self._leader_until = now + lease_s if held else 0.0
            self._metrics.leader.set(held)
        return now < self._leader_until

    def _sweep(self, now: float) -> None:
        if moved := self._ledger.leave_queues(self._sizes.all_queues, self._sizes.largest, now):
            log.info("jobs moved to a queue that has workers", moved=moved, queue=self._sizes.largest)
        touched = self._ledger.sweep(
            now, ring_after_s=self._settings.reconcile_every_s, max_attempts=self._settings.max_attempts
        )
        if touched:
            log.info("ledger swept", repaired=touched)
        if self._settings.cancel_superseded and (ended := self._ledger.cancel_superseded(now)):
            log.info("evaluations superseded", ended=ended)

    def _drain(self) -> int:
        done = 0
        # Doorbells first: workers begin while verdicts are still being written.
        for item in sorted(self._ledger.outbox(self._clock()), key=lambda item: item.kind != "doorbell"):
            if not self._leads():
                break
            done += self._attempt(item)
        return done

    def _attempt(self, item: OutboxItem) -> bool:
        try:
            with tracing.span(item.kind, parent=item.payload.get("trace"), kind="producer"):
                self._do(item)
        except Exception as error:
            if not isinstance(error, GateError):
                log.exception("outbox item failed", seq=item.seq, kind=item.kind)
            tries = self._failures[item.seq] = self._failures.get(item.seq, 0) + 1
            delay_s = min(RETRY_S * 2 ** (tries - 1), LONGEST_RETRY_S)
            log.warning("outbox item put off", seq=item.seq, kind=item.kind, delay_s=delay_s, error=str(error))
            self._count(item, "failed")
            self._ledger.outbox_later(item.seq, self._clock(), delay_s, str(error)[:1000])
            return False
        self._failures.pop(item.seq, None)
        self._ledger.outbox_done(item.seq, self._clock())
        return True

    def _do(self, item: OutboxItem) -> None:
        match item.kind:
            case "doorbell":
                self._queue.ring(item.payload["queue"], item.payload["kind"], item.payload["key"])
                self._count(item, "rung")
            case "project":
                self._count(item, self._projector.project(item.payload["evaluation"]))
            case _:
                raise InvalidInput(f"expected a doorbell or a projection in the outbox, found {item.kind!r}")

    def _count(self, item: OutboxItem, result: str) -> None:
        counter = self._metrics.doorbells if item.kind == "doorbell" else self._metrics.projections
        counter.labels(result).inc()

    def _survive(self, work: Callable[[], int]) -> int | None:
        """What the work returns; ``None`` if it failed, which is logged and tried again."""
        try:
            return work()
        except GateError as error:
            log.warning("dispatcher waits", error=str(error))
        except Exception:
            log.exception("dispatcher step failed")
        return None
