"""Spans and what carries them on, without a collector; and that nothing is there where none is wanted."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from gate.adapters import tracing
from gate.adapters.trace_export import ToldOnce
from gate.domain.errors import InvalidInput, NotFound

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of this process, as they end."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_provider", provider)
    yield exporter
    provider.shutdown()


def test_without_an_address_opentelemetry_is_not_even_imported() -> None:
    code = """
import sys
from gate.adapters import tracing
tracing.start_tracing("", "api")
with tracing.span("delivery", root=True) as begun:
    begun.tell(result="accepted")
    assert tracing.carrier() is tracing.ids() is tracing.exemplar() is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_span_under_a_traceparent_goes_on_with_its_trace(kept: InMemorySpanExporter) -> None:
    with tracing.span("judge", parent=GIVEN):
        carried = tracing.carrier()
    (span,) = kept.get_finished_spans()
    assert span.parent is not None
    assert carried == f"00-{GIVEN[3:35]}-{span.context.span_id:016x}-01"
    assert tracing.trace_id_of(carried) == tracing.trace_id_of(GIVEN)


@pytest.mark.parametrize("broken", ["", "00-zz-zz-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "nonsense"])
def test_a_broken_traceparent_is_as_none(kept: InMemorySpanExporter, broken: str) -> None:
    with tracing.span("project", parent=broken):
        assert tracing.ids() is None
    with tracing.span("judge", parent=broken, root=True):
        assert tracing.ids() is not None
    assert [span.name for span in kept.get_finished_spans()] == ["judge"]


def test_what_is_no_beginning_is_recorded_only_within_a_trace(kept: InMemorySpanExporter) -> None:
    with tracing.span("mlflow"):
        pass
    with tracing.span("delivery", root=True), tracing.span("mlflow"):
        pass
    assert [span.name for span in kept.get_finished_spans()] == ["mlflow", "delivery"]


def test_a_span_that_nothing_came_of_is_not_sent(kept: InMemorySpanExporter) -> None:
    with tracing.span("reconcile", root=True) as begun:
        begun.forget()
    assert kept.get_finished_spans() == ()


def test_what_went_wrong_is_told_but_not_found_is_an_answer(kept: InMemorySpanExporter) -> None:
    for error in (ValueError("no such number"), NotFound("no such alias")):
        with pytest.raises(type(error)), tracing.span("mlflow", root=True):
            raise error
    failed, answered = kept.get_finished_spans()
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "ValueError: no such number")
    assert answered.status.status_code is StatusCode.UNSET
    assert not failed.events


def test_a_log_line_and_a_sample_within_a_trace_name_it(kept: InMemorySpanExporter) -> None:
    assert tracing.add_ids(None, "info", {"event": "x"}) == {"event": "x"}
    with tracing.span("judge", parent=GIVEN):
        line = tracing.add_ids(None, "info", {"event": "x"})
        assert tracing.exemplar() == {"trace_id": GIVEN[3:35]}
    (span,) = kept.get_finished_spans()
    assert line == {"event": "x", "trace_id": GIVEN[3:35], "span_id": f"{span.context.span_id:016x}"}


def test_mlflows_server_is_told_of_a_trace_and_of_nothing_else(kept: InMemorySpanExporter) -> None:
    headers = tracing.TraceHeaders()
    assert (headers.in_context(), headers.request_headers()) == (False, {})
    with tracing.span("judge", parent=GIVEN):
        assert headers.in_context()
        assert headers.request_headers() == {"traceparent": tracing.carrier()}


@pytest.mark.parametrize("endpoint", ["collector:4318", "grpc://collector:4317", "http://"])
def test_an_address_that_is_none_is_refused_with_one_that_would_do(endpoint: str) -> None:
    with pytest.raises(InvalidInput, match="expected an address such as http://collector:4318/v1/traces"):
        tracing.start_tracing(endpoint, "api")


def test_where_opentelemetry_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gate.adapters.trace_export")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidInput, match=r"install basin-gate\[tracing\]"):
        tracing.start_tracing("http://collector:4318/v1/traces", "api")


class Moody(SpanExporter):
    """A collector that is away or there."""

    def __init__(self) -> None:
        self.away = True

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.FAILURE if self.away else SpanExportResult.SUCCESS


def test_a_collector_that_takes_nothing_is_told_once_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    moody = Moody()
    told = ToldOnce(moody)
    for away in (True, True, True, False, False):
        moody.away = away
        told.export(())
    said = caplog.text + capsys.readouterr().out
    assert (said.count("traces are not taken"), said.count("traces are taken again")) == (1, 1)


def test_a_process_that_ends_does_not_wait_for_a_collector_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()

    class Hanging:
        def shutdown(self) -> None:
            hanging.wait()

    monkeypatch.setattr(tracing, "STOP_S", 0.05)
    monkeypatch.setattr(tracing, "_provider", Hanging())
    tracing.stop_tracing()
    assert tracing.carrier() is None
    hanging.set()
