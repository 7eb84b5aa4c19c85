"""Where spans go: OTLP over HTTP, from a thread of its own. Imported only where tracing is on."""

import logging
from collections.abc import Sequence
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

TIMEOUT_S = 3.0
"""How long the sending thread gives a collector for one batch, further tries included."""
log = structlog.get_logger(__name__)


class ToldOnce(SpanExporter):
    """An exporter that says once that nothing is taken, and once that spans are taken again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter, self._away = exporter, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends a batch; what is not taken is dropped."""
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            log.warning("traces are not taken; is the collector up?" if away else "traces are taken again")
        return result

    def shutdown(self) -> None:
        """Ends tries that are under way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)


def provider(endpoint: str, process: str) -> TracerProvider:
    """What makes this process's spans and has them sent."""
    # It would say at each batch what is said once above.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    names = {
        "service.namespace": "basin-gate",
        "service.name": f"basin-gate-{process}",
        "service.version": version("basin-gate"),
    }
    made = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(ToldOnce(OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S))))
    return made
