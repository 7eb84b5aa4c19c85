"""Writes the pages under docs/reference/ from the code itself: ``python docs/generate_reference.py``.

A test compares the pages with what this would write, so that they are never out of date.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import typer
from prometheus_client import CollectorRegistry, Metric
from pydantic_core import to_jsonable_python
from typer.core import TyperGroup

from gate.adapters.guard_metrics import REFUSALS
from gate.adapters.ledger_metrics import empty_ledger
from gate.adapters.metrics import DispatcherMetrics, Metrics, WorkerMetrics
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.cli import app as command_line
from gate.domain.evidence import MEANINGS, DefectCode, Plan
from gate.domain.policy import DEFECT_DEFAULTS
from gate.settings import Settings
from tasks.cli import register

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate_reference.py; change the code, not this page. -->"


def pages() -> Mapping[str, str]:
    """Every reference page by file name."""
    made = {
        "settings.md": settings_page(),
        "measurements.md": measurements_page(),
        "cli.md": commands_page(),
        "http.md": http_page(),
        "metrics.md": metrics_page(),
    }
    return {name: "\n".join([NOTE, "", *rows]).rstrip() + "\n" for name, rows in made.items()}


def settings_page() -> Iterator[str]:
    """Every setting, from the settings class."""
    yield "# Settings"
    yield ""
    yield "Environment variables, read once when a process starts. A misspelt variable is not noticed: check its spelling here."
    yield ""
    yield from table("variable", "default", "meaning")
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        yield row(f"`GATE_{name.upper()}`", default, field.description or "")


def measurements_page() -> Iterator[str]:
    """The vocabulary of measurements and of defects, and the plan they are made by."""
    yield "# Measurements"
    yield ""
    yield "The words that policies, reports, run metrics and attestations use. How each is computed: [measurements explained](../explanation/measurements.md)."
    yield ""
    yield from table("measurement", "unit", "per capability", "meaning")
    for name, meaning in MEANINGS.items():
        yield row(f"`{name}`", meaning.unit, "yes" if meaning.per_capability else "no", meaning.sentence)
    yield from ("", "## Defects", "")
    yield "What can be wrong with the files themselves, and what a policy makes of it unless its `defects:` say otherwise."
    yield ""
    yield from table("defect", "default")
    for code in DefectCode:
        yield row(f"`{code}`", f"{DEFECT_DEFAULTS[code]}")
    yield from ("", "## The plan", "")
    yield "How much is measured. A policy may set each under `plan:`; the values below hold where it does not."
    yield ""
    yield from table("key", "default")
    for key, field in Plan.model_fields.items():
        value = to_jsonable_python(field.default)
        yield row(f"`{key}`", f"`{str(value).lower() if isinstance(value, bool) else value}`")


def metrics_page() -> Iterator[str]:
    """Every Prometheus series, by the process that exposes it."""
    yield "# Metrics"
    yield ""
    yield "Prometheus' text format. How to scrape, what to alert on: [monitor](../howto/monitor.md). Beside these, each process tells its own `process_*` series."
    for heading, note, families in _exposed():
        yield from ("", f"## {heading}", "", note, "")
        yield from table("series", "type", "labels", "meaning")
        for family in sorted(families, key=lambda family: family.name):
            yield row(f"`{_series(family)}`", family.type, _labels(family), family.documentation)


def _exposed() -> Iterator[tuple[str, str, Sequence[Metric]]]:
    ledger = "`/metrics` of the API. Computed at each scrape, so restarts lose nothing and count nothing twice; every API process tells the same, so take their `max`, never their `sum`."
    yield "Of the ledger", ledger, _ours(empty_ledger().collect())
    api, own = Metrics(), "They begin anew with their process."
    api.remind_of_key(0.0)
    yield "Of an API process", f"`/metrics` of the API. {own}", _ours(api.registry.collect())
    port = "on `GATE_METRICS_PORT`, where that is set."
    dispatcher = DispatcherMetrics().registry.collect()
    yield "Of a dispatcher", f"`/metrics` of the dispatcher, {port} {own}", _ours(dispatcher)
    guard = "`/metrics` of MLflow, started with `--expose-prometheus` where `prometheus-flask-exporter` is installed."
    yield "Of the guard inside MLflow", guard, _refusals()
    workers = CollectorRegistry()
    WorkerMetrics(workers)
    yield "Of a worker", f"`/metrics` of the process that runs the jobs, {port} {own}", _ours(workers.collect())


def _refusals() -> Sequence[Metric]:
    REFUSALS.labels("refused")
    return list(REFUSALS.collect())


def _ours(families: Iterable[Metric]) -> Sequence[Metric]:
    return [family for family in families if family.name.startswith("gate_")]


def _series(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def _labels(family: Metric) -> str:
    names = dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le")
    return ", ".join(f"`{name}`" for name in names)


def commands_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# Command line"
    yield ""
    yield "Exit status: 0 done, 2 wrong usage or operational error. `assess` answers with more; `demo` ends with 1 if anything came out otherwise than it must."
    yield ""
    yield from _command(commands(), "basin-gate")


@lru_cache(maxsize=1)
def commands() -> TyperGroup:
    """The whole command line, the bench's commands included."""
    register(command_line)
    group = typer.main.get_command(command_line)
    assert isinstance(group, TyperGroup)
    return group


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"## `{path}`"
    yield ""
    yield " ".join((command.help or "").split())
    yield ""
    if isinstance(command, TyperGroup):
        for name in sorted(command.commands):
            yield from _command(command.commands[name], f"{path} {name}")
        return
    context = command.context_class(command, info_name=path)
    rows = [record for each in command.params if (record := each.get_help_record(context))]
    if rows:
        yield from table("argument or option", "meaning")
        for shown, meaning in rows:
            yield row(f"`{shown}`", " ".join(meaning.split()))
        yield ""


def http_page() -> Iterator[str]:
    """Every route of the API, from its OpenAPI description."""
    described = create_app(nobody(), Access(None)).openapi()
    yield "# HTTP"
    yield ""
    yield "JSON in and out. Errors are problem documents (RFC 9457, `application/problem+json`) whose `detail` says what was expected, what was found, and what to do: 404 for what is not there, 503 while the ledger or MLflow does not answer. `/docs` on a running gate is the same page, interactive."
    yield ""
    for path, methods in sorted(described["paths"].items()):
        for method, operation in methods.items():
            yield from _route(method.upper(), path, operation)
    yield from ("## Documents", "")
    for name in ("EvaluationView", "VerdictView", "PromotionQuestion", "PromotionAnswer"):
        yield from _document(name, described["components"]["schemas"][name])


def nobody() -> Door:
    """A door behind which nobody is: enough to describe the API, which asks it nothing."""
    nothing = cast(Any, None)
    return Door(nothing, nothing, nothing, (), time.time, Metrics(), nothing)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"## `{method} {path}`"
    yield ""
    yield " ".join(operation.get("description", operation["summary"]).split()).replace("``", "`")
    yield ""
    if parameters := operation.get("parameters"):
        yield from table("parameter", "in", "")
        for each in parameters:
            yield row(f"`{each['name']}`", each["in"], "required" if each["required"] else "optional")
        yield ""
    yield from table("answer", "meaning")
    for status, answer in operation["responses"].items():
        yield row(status, _meaning(answer["description"]))
    yield ""


def _meaning(description: str) -> str:
    known = {"Successful Response": "Done.", "Validation Error": "The request is not of this shape."}
    return known.get(description, description)


def _document(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield " ".join(schema["description"].split()).replace("``", "`")
    yield ""
    yield ", ".join(f"`{field}`" for field in schema["properties"]) + "."
    yield ""


def table(*heads: str) -> Iterator[str]:
    """The head of a Markdown table."""
    yield row(*heads)
    yield "|" + "---|" * len(heads)


def row(*cells: str) -> str:
    """One row of a Markdown table; a bar inside a cell does not end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
