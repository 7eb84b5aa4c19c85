"""Messages to channels, sent beside all other work: a channel that hangs or is gone delays no verdict and no worker."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import structlog

from gate.adapters.channels import Channels
from gate.adapters.metrics import DispatcherMetrics
from gate.dispatcher.notices import of_overdue_glass, of_waiver, tell
from gate.domain.errors import GateError
from gate.domain.policy import PolicySet
from gate.domain.records import OutboxItem, WaiverState
from gate.ports import Ledger

SOON_S = 7 * 86_400.0
"""So long before it ends people are told of a waiver."""
RETRY_S = 10.0
LONGEST_RETRY_S = 3600.0
LOOK_EVERY_S = 600.0
log = structlog.get_logger(__name__)


class Notifier:
    """Sends what the ledger holds for channels: each message at least once, later again where it fails."""

    def __init__(
        self,
        ledger: Ledger,
        policies: PolicySet,
        channels_file: Path | None,
        clock: Callable[[], float],
        metrics: DispatcherMetrics,
    ) -> None:
        self._ledger, self._policies, self._clock, self._metrics = ledger, policies, clock, metrics
        self._channels = Channels(channels_file)
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="notifier")
        self._sending: Future[int] | None = None
        self._failures: dict[int, int] = {}
        self._next_look = 0.0

    def begin(self) -> None:
        """Have what is due sent by another thread, unless it is sending still; returns at once."""
        if self._sending is None or self._sending.done():
            self._sending = self._sender.submit(self._survive)

    def close(self) -> None:
        """Send nothing more; what is left stays in the ledger."""
        self._sender.shutdown(wait=False, cancel_futures=True)

    def look(self, now: float) -> None:
        """Have it told which waivers end soon, and which broken glasses nobody reviewed in time."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        for kept in self._ledger.waivers():
            policy = next((p for p in self._policies.policies if p.name == kept.waiver.policy), None)
            left = kept.waiver.expires_at - now
            if policy is not None and kept.state is WaiverState.GRANTED and 0 < left <= SOON_S:
                tell(self._ledger, policy, of_waiver(kept.waiver.id, kept.waiver, math.ceil(left / 86_400)), now)

        for broken in self._ledger.glasses():
            policy = next((p for p in self._policies.policies if p.name == broken.request.policy), None)
            if policy is not None and broken.unreviewed and broken.signed and broken.glass.review_by <= now:
                tell(self._ledger, policy, of_overdue_glass(broken.request.version, broken.glass), now)

    def send_due(self) -> int:
        """Send what is due now; how many messages were sent."""
        return sum(self._attempt(item) for item in self._ledger.notices(self._clock()))

    def _survive(self) -> int:
        try:
            return self.send_due()
        except Exception as error:  # the next step tries again
            log.warning("notifier waits", reason=type(error).__name__)
            return 0

    def _attempt(self, item: OutboxItem) -> bool:
        channel = str(item.payload["channel"])
        try:
            self._channels.send(channel, str(item.payload["title"]), str(item.payload["body"]))
        except Exception as error:
            # A library's own words may hold the channel's address, which is a secret.
            told = str(error) if isinstance(error, GateError) else type(error).__name__
            self._put_off(item, channel, told)
            return False
        self._failures.pop(item.seq, None)
        self._ledger.outbox_done(item.seq, self._clock())
        self._metrics.notifications.labels("sent").inc()
        return True

    def _put_off(self, item: OutboxItem, channel: str, error: str) -> None:
        tries = self._failures[item.seq] = self._failures.get(item.seq, 0) + 1
        delay_s = min(RETRY_S * 2 ** (tries - 1), LONGEST_RETRY_S)
        log.warning("message put off", channel=channel, delay_s=delay_s, error=error)
        self._metrics.notifications.labels("failed").inc()
        self._ledger.outbox_later(item.seq, self._clock(), delay_s, error[:1000])
