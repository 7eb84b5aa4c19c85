"""A worker that takes what is due from the ledger, and ends when nothing is: for schedulers that start a pod for work.

Work is found without a message, since a doorbell says nothing that the ledger does not. It stays for a while after its
last job, so that the next one finds the base loaded.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import structlog

from gate.adapters.logs import configure_logging
from gate.adapters.tracing import start_tracing
from gate.bootstrap import build_ledger, build_queue
from gate.domain.errors import Unavailable
from gate.ports import Ledger
from gate.settings import Settings, settings
from tasks.running import run_job

LOOK_EVERY_S = 1.0
log = structlog.get_logger(__name__)


class Drain:
    """Does the jobs of one queue, one at a time, until nothing has been due for ``linger_s`` or it is told to stop."""

    def __init__(
        self,
        queue: str,
        ledger: Ledger,
        given: Settings,
        *,
        linger_s: float,
        clock: Callable[[], float] = time.time,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._queue, self._ledger, self._settings = queue, ledger, given
        self._linger_s, self._clock, self._look_every_s = linger_s, clock, look_every_s
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begin no other job."""
        self._stopped.set()

    def run(self) -> int:
        """How many jobs were begun."""
        begun, idle_since = 0, self._clock()
        while not self._stopped.is_set():
            if self._one():
                begun, idle_since = begun + 1, self._clock()
            elif self._clock() - idle_since >= self._linger_s:
                break
            else:
                self._stopped.wait(self._look_every_s)
        return begun

    def _one(self) -> bool:
        """Whether a job was due that nobody else took first."""
        try:
            keys = self._ledger.due(self._queue, self._clock())
        except Unavailable as error:
            log.warning("ledger not read", error=str(error))
            return False
        return any(run_job(key, self._owner, self._ledger, self._settings) != "nothing" for key in keys)


def main() -> None:
    """``python -m tasks.drain QUEUE SECONDS``: told to stop, it gives its job the grace of a worker, then hands it back."""
    queue, linger_s = sys.argv[1], float(sys.argv[2])
    configure_logging(settings().log_level)
    start_tracing(settings().traces_endpoint, "worker")
    ledger = build_ledger(settings())
    drain = Drain(queue, ledger, settings(), linger_s=linger_s)

    def end(*_: object) -> None:
        drain.stop()
        signal.setitimer(signal.ITIMER_REAL, max(settings().stop_grace_s, 0.001))

    def hand_back(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGALRM, hand_back)
    log.info("worker ends", queue=queue, jobs=drain.run())
    silence(queue)


def silence(queue: str) -> None:
    """Takes down the queue's doorbells: nobody may be there to answer them, and what comes due is rung for again."""
    broker = build_queue(settings())
    try:
        broker.silence(queue)
    except Unavailable as error:
        log.warning("doorbells left", queue=queue, error=str(error))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
