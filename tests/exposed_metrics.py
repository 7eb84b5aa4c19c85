"""Every series that the product declares, with the labels and the label values that it tells from the beginning."""

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric

from gate.adapters.ledger_metrics import empty_ledger
from gate.adapters.metrics import DispatcherMetrics, Metrics, WorkerMetrics

SERIES = re.compile(r"\b(gate_[a-z_]+)\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
OPEN_VALUES = {"le", "instance"}


def families() -> Iterator[Metric]:
    """What all processes of the product expose."""
    api, workers = Metrics(), CollectorRegistry()
    api.remind_of_key(0.0)
    WorkerMetrics(workers)
    yield from empty_ledger().collect()
    for registry in (api.registry, DispatcherMetrics().registry, workers):
        yield from (family for family in registry.collect() if family.name.startswith("gate_"))


def declared() -> Mapping[str, Mapping[str, set[str]]]:
    """Name of each series → its labels → their values."""
    known: dict[str, dict[str, set[str]]] = {}
    for family in families():
        for sample in family.samples:
            labels = known.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return known


def unknown_in(expression: str) -> list[str]:
    """Series, labels and label values that a PromQL expression asks for and nobody tells."""
    known, wrong = declared(), []
    for name, matchers in SERIES.findall(expression):
        if name not in known:
            wrong.append(name)
            continue
        for label, operator, value in MATCHER.findall(matchers):
            if label in OPEN_VALUES and (label != "le" or value in known[name].get("le", ())):
                continue
            values = value.split("|") if operator in ("=~", "!~") else [value]
            told = known[name].get(label, set())
            wrong += [f'{name}{{{label}="{each}"}}' for each in values if each not in told]
    return wrong
