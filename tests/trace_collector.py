"""A collector of traces on loopback: takes OTLP over HTTP as protobuf and keeps every span."""

import gzip
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class Sent:
    """A span as it came in: ids are hex digits, the root's parent is empty."""

    process: str
    name: str
    trace: str
    id: str
    parent: str
    failed: bool
    attributes: Mapping[str, str]


@dataclass
class Collector:
    """Serves until stopped. ``headers`` are those of the last request."""

    spans: list[Sent] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers = dict(self.headers)
                collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Keeps the tests' output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        """Keeps the spans of one request."""
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = _texts(of_process.resource.attributes)["service.name"]
            for of_library in of_process.scope_spans:
                self.spans += [
                    Sent(
                        process,
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.status.code == 2,
                        _texts(span.attributes),
                    )
                    for span in of_library.spans
                ]

    def of_trace(self, trace: str) -> Sequence[Sent]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace == trace]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _texts(attributes: Sequence[KeyValue]) -> Mapping[str, str]:
    return {each.key: str(getattr(each.value, each.value.WhichOneof("value"))) for each in attributes}
