"""A real Prometheus scrapes the running product: every documented series is there, and real faults are seen."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from exposed_metrics import declared
from mlflow import MlflowClient
from monitored_stack import RULES, MonitoredStack, Prometheus, until
from prometheus_tools import tool

from gate.adapters.database import ledger_url
from gate.adapters.sql_ledger import SqlLedger
from gate.domain.records import JobRequest

GROUPS = yaml.safe_load(RULES.read_text())["groups"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "alert" in rule}
OF_THE_GUARD = {"gate_guard_refusals_total"}
"""Exposed by an MLflow server, where it exposes metrics at all; it has a test of its own."""
ABSENT_AT_FIRST = {
    "gate_approval_expiry_timestamp_seconds",
    "gate_selfcheck_due_timestamp_seconds",
    "gate_waiver_expiry_timestamp_seconds",
}
"""Told once something was approved, and where a check of the gate is scheduled."""
STAGED = Path(__file__).parents[2] / "tasks" / "zoo" / "staged"
DASHBOARD = RULES.with_name("dashboard.json")
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
Shorter = tuple[str, str] | None


@dataclass
class Watched:
    """The product under the eyes of Prometheus."""

    stack: MonitoredStack
    prometheus: Prometheus
    client: MlflowClient
    ledger: SqlLedger

    def fires(self, alert: str, shorter: Shorter = None) -> bool:
        """Whether the alert's expression returns something now; a threshold of minutes may be made one of seconds."""
        expression = EXPRESSIONS[alert]
        if shorter is not None:
            assert expression.count(shorter[0]) == 1
            expression = expression.replace(*shorter)
        return bool(self.prometheus.ask(expression))

    def until_it_fires(self, alert: str, shorter: Shorter = None) -> None:
        until(lambda: self.fires(alert, shorter), lambda: f"{alert} does not fire\n{self.situation()}")

    def until_it_rests(self, alert: str, shorter: Shorter = None) -> None:
        until(lambda: not self.fires(alert, shorter), lambda: f"{alert} goes on\n{self.situation()}")

    def until_told(self, expression: str) -> None:
        until(lambda: self.prometheus.ask(expression), lambda: f"never: {expression}\n{self.situation()}")

    def situation(self) -> str:
        return "\n".join(f"--- {name}\n{self.stack.log_tail(name)}" for name in self.stack.processes)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    tool("prometheus")
    folder = tmp_path_factory.mktemp("monitored")
    stack = MonitoredStack(
        folder / "gate", GATE_RECONCILE_EVERY_S="1", GATE_LEASE_S="6", GATE_SIGNING_KEY_REPLACE_BY="2026-01-01"
    )
    prometheus = Prometheus(folder / "prometheus", stack.targets)
    try:
        stack.start()
        ledger = SqlLedger(ledger_url("", stack.state))
        made = Watched(stack, prometheus, MlflowClient(stack.mlflow_uri, stack.mlflow_uri), ledger)
        until(prometheus.ready, lambda: "Prometheus does not answer")
        made.until_told("count(up == 1) == 4")
        made.until_told("gate_reconciled_timestamp_seconds")
        yield made
        ledger.close()
    finally:
        prometheus.stop()
        stack.stop()


def test_every_documented_series_is_scraped_and_every_scraped_series_is_documented(watched: Watched) -> None:
    expected = set(declared()) - ABSENT_AT_FIRST
    until(lambda: expected <= watched.prometheus.series(), lambda: expected - watched.prometheus.series())
    assert watched.prometheus.series() <= set(declared())
    documented = set(re.findall(r"^\| `(gate_\w+)`", REFERENCE.read_text(), re.MULTILINE)) - OF_THE_GUARD
    assert {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in declared() if not name.endswith("_created")
    } == documented


def test_prometheus_evaluates_every_rule_without_an_error(watched: Watched) -> None:
    def rules() -> list[dict[str, str]]:
        return [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), rules)
    assert {rule["health"] for rule in rules()} == {"ok"}


def test_every_query_of_the_dashboard_is_answered(watched: Watched) -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if "targets" in panel]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]

    def unanswered() -> list[str]:
        return [e for e in expressions if not watched.prometheus.ask(e.replace("$__rate_interval", "1m"))]

    # What is a ratio of nothing yet, or absent without an approval, is answered with nothing.
    until(lambda: len(unanswered()) < 0.2 * len(expressions), unanswered)


def test_while_nothing_is_wrong_only_the_overdue_key_is_told(watched: Watched) -> None:
    def told() -> set[str]:
        return {alert for alert in EXPRESSIONS if watched.fires(alert)}

    # A scrape that a loaded machine misses is told too, until the next: what is wrong stays.
    until(lambda: told() == {"GateSigningKeyDue"}, told)


def test_a_deleted_webhook_is_told_though_it_was_mended(watched: Watched) -> None:
    (hook,) = watched.client.list_webhooks()
    watched.client.delete_webhook(hook.webhook_id)
    watched.until_it_fires("GateWebhookMissing")
    assert len(watched.client.list_webhooks()) == 1


def test_a_version_promoted_in_mlflows_own_database_is_a_bypass(watched: Watched) -> None:
    run = watched.client.create_run(watched.client.create_experiment("stray")).info.run_id
    watched.client.log_artifacts(run, str(STAGED), "model")
    watched.client.create_registered_model("stray")
    watched.client.create_model_version("stray", f"runs:/{run}/model", run)
    watched.until_told("sum(gate_verdicts_total) == 1")
    assert not watched.fires("GateBypassDetected")
    promoted = "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('stray', 'champion', 1)"
    with closing(sqlite3.connect(watched.stack.state / "mlflow.db", timeout=60)) as database, database:
        database.execute(promoted)
    watched.until_it_fires("GateBypassDetected")
    watched.until_it_fires("GateUnapprovedPromotion")
    watched.client.delete_registered_model_alias("stray", "champion")
    watched.until_it_rests("GateUnapprovedPromotion")


def test_a_killed_dispatcher_and_a_killed_gpu_worker_are_told_until_they_are_back(watched: Watched) -> None:
    seconds = ("> 300", "> 5")
    watched.until_it_rests("GateReconcileStale", seconds)
    watched.until_it_rests("GateNoWorker")
    for name in ("gpu-worker", "dispatcher"):
        watched.stack.kill(name)
    # Asked for a quarter of an hour ago, as far as the ledger knows.
    watched.ledger.enqueue([JobRequest("profile:none", "profile", "gpu")], time.time() - 900)
    watched.until_it_fires("GateNoWorker")
    assert watched.prometheus.ask(EXPRESSIONS["GateNoWorker"]) == [{"queue": "gpu"}]
    watched.until_it_fires("GateReconcileStale", seconds)
    for name in ("gpu-worker", "dispatcher"):
        watched.stack.launch(watched.stack.service(name))
    watched.until_it_rests("GateReconcileStale", seconds)
    watched.until_it_rests("GateNoWorker")
    watched.until_told('gate_job_runs_total{kind="profile",outcome!~"done|lost"} > 0')


def test_killed_processes_neither_lost_nor_doubled_a_count(watched: Watched) -> None:
    counted = ("sum(gate_verdicts_total)", "sum(gate_job_runs_total{kind=~'inspect|judge'})")

    def counts() -> list[float | None]:
        return [watched.prometheus.value(each) for each in counted]

    until(lambda: None not in counts(), counts)
    before = counts()
    for name in ("api", "dispatcher"):
        watched.stack.kill(name)
    watched.until_it_fires("GateDown")
    for name in ("api", "dispatcher"):
        watched.stack.launch(watched.stack.service(name))
    watched.until_it_rests("GateDown")
    until(lambda: counts() == before, counts)
    assert watched.prometheus.value("max(resets(gate_verdicts_total[5m]))") == 0
    assert watched.prometheus.value("max(resets(gate_job_runs_total[5m]))") == 0
