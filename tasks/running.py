"""How any job is run: claim it in the ledger, keep its lease alive, do it, and say how it ended.

A job is a function ``run(job: JobContext) -> JobDone | JobWaits`` in ``tasks.<kind>``. What it raises decides how
it ends: ``Unavailable`` puts it off until the outside answers again, ``NotMeasurable`` and ``InvalidInput`` fail it
at once (trying again cannot help), anything else is tried again a few times. A worker that lost its lease stops
silently: its successor writes the result.
"""

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import structlog

from gate.adapters import tracing
from gate.domain.errors import InvalidInput, LostLease, NotMeasurable, Unavailable
from gate.domain.jobs import KINDS
from gate.domain.overview import Narrowing
from gate.domain.records import Claim, JobRequest
from gate.ports import Ledger
from gate.settings import Settings

log = structlog.get_logger(__name__)

PULSE_S = 1.0
MAX_OUTAGES = 20
MAX_DELAY_S = 300.0
# The answer of an hour's measurement is not thrown away because the database restarts while it is written.
WRITE_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
ERROR_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class JobDone:
    """The job ended well; ``then`` are the jobs it makes necessary."""

    result: Mapping[str, Any] = field(default_factory=dict)
    then: tuple[JobRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class JobWaits:
    """The job cannot go on before all it needs has ended; it is run again from its start, perhaps sooner."""

    needs: tuple[JobRequest, ...]


class JobContext:
    """What a job is given: its claim, the ledger, the settings, and a way to tell how far it has come."""

    def __init__(self, claim: Claim, ledger: Ledger, settings: Settings) -> None:
        self.claim = claim
        self.ledger = ledger
        self.settings = settings
        self.lost = threading.Event()
        self.told: Mapping[str, Any] | None = None
        self._narrowing: list[dict[str, Any]] = []
        self._stage = ExitStack()

    def __enter__(self) -> "JobContext":
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()

    @staticmethod
    def now() -> float:
        """The time, in Unix seconds."""
        return time.time()

    def progress(self, stage: str, fraction: float, narrowing: Sequence[Narrowing] | None = None) -> None:
        """Says which stage the job is in and how much of the whole (0 to 1) is behind it; a point to be stopped at.

        ``narrowing`` is how sure the comparisons are by now; without it what was told before stays. Costs nothing: the
        heartbeat writes what was told last, once a second at most, whoever listens.
        """
        if self.told is None or stage != self.told["stage"]:
            self._stage.close()
            # What is measured, not of which capability: spans have few names.
            self._stage.enter_context(tracing.span(stage.partition(":")[0], stage=stage))
        if narrowing is not None:
            self._narrowing = [asdict(each) for each in narrowing]
        told = {"stage": stage, "fraction": min(1.0, max(0.0, fraction))}
        self.told = told | ({"narrowing": self._narrowing} if self._narrowing else {})
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raises ``LostLease`` once the job belongs to somebody else: call it wherever stopping is cheap."""
        if self.lost.is_set():
            raise LostLease(f"job {self.claim.key}: the lease was lost while it ran; discard this result")


JobFunction: TypeAlias = Callable[[JobContext], JobDone | JobWaits]
Ending: TypeAlias = Callable[[float], None]

# Functions set by hand come before ``tasks.<kind>.run``.
FUNCTIONS: dict[str, JobFunction] = {}
# Told of each run: kind, outcome, seconds.
OBSERVERS: list[Callable[[str, str, float], None]] = []


def run_job(key: str, owner: str, ledger: Ledger, settings: Settings) -> str:
    """Does the job whose turn it is on the queue that a doorbell rang on; returns how that ended, in one word."""
    try:
        claim = ledger.claim_next(key, owner, settings.lease_s, time.time(), settings.sharing())
    except Unavailable as error:
        log.warning("job not claimed", rung=key, error=str(error))
        return "unavailable"
    if claim is None:
        log.debug("nothing to do", rung=key)
        return "nothing"
    about = {"evaluation": claim.payload["evaluation"]} if "evaluation" in claim.payload else {}
    with structlog.contextvars.bound_contextvars(job=claim.key, **about):
        return _run(JobContext(claim, ledger, settings))


def _run(context: JobContext) -> str:
    claim, begun = context.claim, time.monotonic()
    with tracing.span(
        claim.kind, parent=claim.trace, root=True, kind="consumer", job=claim.key, attempt=claim.attempts
    ) as span:
        log.info("job begins", attempt=claim.attempts, epoch=claim.epoch)
        with _heartbeat(context):
            with context:
                outcome, ending = _attempt(context)
            outcome = _settle(outcome, ending)
        seconds = time.monotonic() - begun
        log.info("job ends", outcome=outcome, seconds=round(seconds, 3))
        span.tell(outcome=outcome)
        for observe in OBSERVERS:
            observe(claim.kind, outcome, seconds)
    return outcome


def _attempt(context: JobContext) -> tuple[str, Ending]:
    """Runs the job's function; returns the outcome and how to write it."""
    claim, ledger = context.claim, context.ledger
    if claim.attempts > context.settings.max_attempts:
        return _failed(context, NotMeasurable(f"expected an end within {claim.attempts - 1} attempts, found none"))
    try:
        answer = _function(claim.kind)(context)
    except LostLease:
        return "lost", lambda _: None
    except Unavailable as error:
        return _after_outage(context, error)
    except (NotMeasurable, InvalidInput) as error:
        return _failed(context, error)
    except Exception as error:
        log.exception("job raised")
        return _after_error(context, error)
    except BaseException:
        # The worker is told to stop: hand the job over at once instead of letting its lease run out.
        ledger.retry(claim, time.time(), error="the worker was stopped", delay_s=0.0, outage=True)
        raise
    if isinstance(answer, JobWaits):
        return "waits", lambda now: ledger.wait(claim, now, *answer.needs, progress=context.told)
    return "done", lambda now: ledger.finish(claim, now, result=answer.result, then=answer.then)


def _after_outage(context: JobContext, error: Unavailable) -> tuple[str, Ending]:
    if context.claim.outages >= MAX_OUTAGES:
        return _failed(context, error)
    return _put_off(context, error, backoff_s(context.claim.outages), outage=True)


def _after_error(context: JobContext, error: Exception) -> tuple[str, Ending]:
    if context.claim.attempts >= context.settings.max_attempts:
        return _failed(context, error)
    return _put_off(context, error, backoff_s(context.claim.attempts - 1), outage=False)


def _put_off(context: JobContext, error: Exception, delay_s: float, outage: bool) -> tuple[str, Ending]:
    claim, ledger, text = context.claim, context.ledger, _text(error)
    log.warning("job put off", error=text, delay_s=delay_s)
    return "retried", lambda now: ledger.retry(claim, now, error=text, delay_s=delay_s, outage=outage)


def _failed(context: JobContext, error: Exception) -> tuple[str, Ending]:
    claim, ledger, text = context.claim, context.ledger, _text(error)
    log.error("job failed", error=text)
    return "failed", lambda now: ledger.fail(claim, now, error=text)


def _settle(outcome: str, ending: Ending) -> str:
    """Writes the ending, patiently; the lease is still being renewed meanwhile."""
    for pause in (*WRITE_PAUSES_S, None):
        try:
            ending(time.time())
        except LostLease:
            return "lost"
        except Unavailable as error:
            log.warning("ending not written", error=str(error))
            if pause is not None:
                time.sleep(pause)
        else:
            return outcome
    return "unavailable"


@contextmanager
def _heartbeat(context: JobContext) -> Iterator[None]:
    stopped = threading.Event()
    thread = threading.Thread(target=copy_context().run, args=(_beat, context, stopped), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _beat(context: JobContext, stopped: threading.Event) -> None:
    """Renews the lease each third of it, and sooner when there is progress to tell."""
    every_s = context.settings.lease_s / 3
    last, told = time.monotonic(), None
    while not context.lost.is_set() and not stopped.wait(min(PULSE_S, every_s)):
        if context.told == told and time.monotonic() - last < every_s:
            continue
        told = context.told
        try:
            context.ledger.renew(context.claim, context.settings.lease_s, time.time(), told)
            last = time.monotonic()
        except LostLease:
            context.lost.set()
        except Unavailable as error:
            log.warning("lease not renewed", error=str(error))


def backoff_s(failures: int) -> float:
    """Seconds until the next try, after so many before this one.

    >>> [backoff_s(n) for n in (0, 1, 2, 20)]
    [5.0, 10.0, 20.0, 300.0]
    """
    return float(min(MAX_DELAY_S, 5.0 * 2 ** min(failures, 10)))


def _function(kind: str) -> JobFunction:
    if kind in FUNCTIONS:
        return FUNCTIONS[kind]
    if kind not in KINDS:
        raise InvalidInput(f"expected a job of {KINDS}, found {kind!r}; is this worker older than the gate?")
    function: JobFunction = importlib.import_module(f"tasks.{kind}").run
    return function


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH]
