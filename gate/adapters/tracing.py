"""One trace from a delivery to its verdict, by OpenTelemetry where ``GATE_TRACES_ENDPOINT`` is set.

Without it nothing is imported, made or recorded. A trace goes from process to process as a W3C traceparent that the
ledger keeps with each evaluation and job: doorbells may be lost or doubled, the ledger's rows are not. Spans are handed
to a thread that sends them; what a collector does not take in time is dropped, and nobody waits for it.
"""

import atexit
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from gate.domain.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Kind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]

STOP_S = 2.0
"""How long a process that ends waits for its last spans to be taken, in seconds."""
ERROR_LENGTH = 500
_provider: "TracerProvider | None" = None


class Begun:
    """A span that has begun, or nothing where none is recorded."""

    def __init__(self, span: "Span | None" = None) -> None:
        self._span = span
        self.kept = True

    def tell(self, **attributes: str | float) -> None:
        """Adds what is known only now, each as ``gate.<name>``."""
        if self._span is not None:
            self._span.set_attributes({f"gate.{name}": value for name, value in attributes.items()})

    def fail(self, why: str) -> None:
        """Marks it as one that went wrong."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, why[:ERROR_LENGTH]))

    def forget(self) -> None:
        """Nothing came of it: it is not sent."""
        self.kept = False


def start_tracing(endpoint: str, process: str) -> None:
    """Sends this process's spans to an OTLP/HTTP address from now on; without one, does nothing.

    The SDK's own variables say the rest (``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_TRACES_SAMPLER`` …). Raises
    `InvalidInput` for an address that is none, or where OpenTelemetry is not installed.
    """
    global _provider
    if not endpoint:
        return
    parsed = urlsplit(endpoint)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise InvalidInput(
            f"GATE_TRACES_ENDPOINT: expected an address such as http://collector:4318/v1/traces, found {endpoint!r}; "
            "unset it to trace nothing"
        )
    try:
        from gate.adapters.trace_export import provider
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"GATE_TRACES_ENDPOINT: expected OpenTelemetry's OTLP exporter, found no {error.name}; "
            "install basin-gate[tracing], or unset it"
        ) from error
    _provider = provider(endpoint, process)
    atexit.register(stop_tracing)


def stop_tracing() -> None:
    """Sends what is left, if that is quick; nothing is recorded afterwards."""
    global _provider
    ended, _provider = _provider, None
    if ended is not None:
        # By a thread that is left to itself: the SDK would wait for a dead collector for half a minute.
        ending = threading.Thread(target=ended.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(STOP_S)


def span(
    name: str, *, parent: str | None = None, root: bool = False, kind: Kind = "internal", **attributes: str | float
) -> AbstractContextManager[Begun]:
    """A span around a ``with`` block: under a traceparent, else under the span around it.

    Where there is neither, a ``root`` begins a trace, and anything else is not recorded. Names are few and fixed; what
    differs goes into attributes, each as ``gate.<name>``.
    """
    if _provider is None:
        return nullcontext(Begun())
    given = _context_of(parent)
    if given is None and not root and ids() is None:
        return nullcontext(Begun())
    return _recorded(_provider, name, given, kind, attributes)


def carrier() -> str | None:
    """The traceparent of the span around the caller, for whoever goes on elsewhere; ``None`` where there is none."""
    if _provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    return found.get("traceparent")


def ids() -> tuple[str, str] | None:
    """Trace id and span id (32 and 16 hex digits) of the span around the caller; ``None`` where there is none."""
    if _provider is None:
        return None
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    here = get_current_span().get_span_context()
    return (format_trace_id(here.trace_id), format_span_id(here.span_id)) if here.is_valid else None


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a traceparent.

    >>> trace_id_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), trace_id_of(None)
    ('0af7651916cd43dd8448eb211c80319c', None)
    """
    return traceparent.split("-")[1] if traceparent else None


def exemplar() -> dict[str, str] | None:
    """What a Prometheus sample is given to lead to the trace around the caller."""
    here = ids()
    return {"trace_id": here[0]} if here else None


def add_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: each line within a span names it."""
    here = ids()
    if here is not None:
        event["trace_id"], event["span_id"] = here
    return event


class TraceHeaders:
    """MLflow's plug-in point for request headers: its server can go on with the trace that a call belongs to."""

    def in_context(self) -> bool:
        """Whether there is a trace."""
        return ids() is not None

    def request_headers(self) -> dict[str, str]:
        """The traceparent."""
        found = carrier()
        return {"traceparent": found} if found else {}


def _context_of(traceparent: str | None) -> "Context | None":
    if traceparent is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
    return found if get_current_span(found).get_span_context().is_valid else None


@contextmanager
def _recorded(
    provider: "TracerProvider", name: str, context: "Context | None", kind: Kind, attributes: dict[str, str | float]
) -> Iterator[Begun]:
    from opentelemetry.trace import SpanKind, use_span

    made = provider.get_tracer("basin-gate").start_span(name, context=context, kind=SpanKind[kind.upper()])
    begun = Begun(made)
    begun.tell(**attributes)
    with use_span(made, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        try:
            yield begun
        except NotFound:
            raise  # an answer like any other
        except BaseException as error:
            begun.fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            if begun.kept:
                made.end()
