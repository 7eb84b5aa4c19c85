"""The alerts: each fires, rests and resolves as promtool sees it, asks for series that exist, and has its runbook."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from exposed_metrics import declared, unknown_in
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_tools import output_of

from gate.adapters.ledger_metrics import empty_ledger
from gate.adapters.metrics import DispatcherMetrics, Metrics
from gate.adapters.sql_ledger import migrate

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts" / "basin-gate" / "files" / "alerts.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
MONITOR = ROOT / "docs" / "howto" / "monitor.md"
SCENARIOS = sorted((ROOT / "tests" / "golden" / "alerts").glob("*.yaml"))
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)

GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}


def fences(page: Path, kind: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text()) if found == kind]


def expressions() -> Iterator[Any]:
    """Each PromQL expression of the rules and of the pages."""
    for group in GROUPS:
        for rule in group["rules"]:
            yield pytest.param(rule["expr"], id=rule.get("alert") or rule["record"])
    for page in (*sorted(RUNBOOKS.glob("*.md")), MONITOR):
        for text in fences(page, "promql"):
            for line in text.splitlines():
                yield pytest.param(line, id=f"{page.stem}:{line}")


def scenarios(alert: str) -> Iterator[list[bool]]:
    """Of each scenario: whether the alert fires at each moment that it is looked at, in order of time."""
    for file in SCENARIOS:
        for scenario in yaml.safe_load(file.read_text())["tests"]:
            looks = [look for look in scenario["alert_rule_test"] if look["alertname"] == alert]
            yield [bool(look["exp_alerts"]) for look in looks]


def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in output_of("promtool", "check", "rules", str(RULES))


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_alerts_do_in_each_scenario_what_is_written_there(file: Path) -> None:
    assert "SUCCESS" in output_of("promtool", "test", "rules", str(file))


@pytest.mark.parametrize("alert", ALERTS)
def test_there_is_a_scenario_in_which_the_alert_rests_fires_and_resolves(alert: str) -> None:
    assert [False, True, False] in scenarios(alert)


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_asks_only_for_what_the_product_tells(expression: str) -> None:
    assert unknown_in(expression) == []
    assert set(re.findall(r"gate:[a-z0-9_:]+", expression)) <= RECORDED


def test_an_expression_with_a_misspelt_series_label_or_value_would_be_noticed() -> None:
    assert unknown_in("rate(gate_verdict_total[5m])") == ["gate_verdict_total"]
    assert unknown_in('gate_jobs{state="idle"}') == ['gate_jobs{state="idle"}']
    assert unknown_in('gate_time_to_verdict_seconds_bucket{le="3601.0"}') != []
    assert len(declared()) > 40


def test_prometheus_can_parse_every_expression_of_the_pages(tmp_path: Path) -> None:
    rules = [{"record": f"page:{n}", "expr": each.values[0]} for n, each in enumerate(expressions())]
    rules = [rule | {"record": f"expression:number_{n}"} for n, rule in enumerate(rules)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "pages", "rules": rules}]}))
    assert f"{len(rules)} rules found" in output_of("promtool", "check", "rules", str(tmp_path / "rules.yaml"))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_its_runbook_is(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert "for" in rule
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOKS / f"{alert}.md"
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    assert headings == [alert, "Meaning", "See it", "Causes", "Fix"]


def test_every_runbook_belongs_to_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(ALERTS)


def test_every_query_of_the_runbooks_runs_on_the_ledger(database_url: str) -> None:
    migrate(database_url)
    engine = sa.create_engine(database_url)
    queries = [
        q for page in RUNBOOKS.glob("*.md") for text in fences(page, "sql") for q in text.split(";") if q.strip()
    ]
    with engine.connect() as connection:
        for query in queries:
            assert (
                connection.exec_driver_sql(query.replace("%", "%%") if "psycopg" in database_url else query).all() == []
            )
    engine.dispose()
    assert len(queries) > 10


def test_promtool_has_nothing_to_say_about_names_and_help_of_the_series() -> None:
    ledger = CollectorRegistry()
    ledger.register(empty_ledger())
    texts = [generate_latest(each).decode() for each in (ledger, Metrics().registry, DispatcherMetrics().registry)]
    for text in texts:
        assert output_of("promtool", "check", "metrics", given=text) == ""


@pytest.fixture
def alertmanager(tmp_path: Path) -> Path:
    """The example of the documentation, as a file."""
    (text,) = fences(MONITOR, "yaml")[-1:]
    (tmp_path / "alertmanager.yaml").write_text(text)
    return tmp_path / "alertmanager.yaml"


def test_amtool_takes_the_alertmanager_example(alertmanager: Path) -> None:
    assert "SUCCESS" in output_of("amtool", "check-config", str(alertmanager))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=GateBypassDetected", "severity=critical"), "security-pager"),
        (("alertname=GateNoWorker", "severity=critical"), "platform-pager"),
        (("alertname=GateErrorVerdicts", "severity=warning"), "platform-chat"),
        (("alertname=SomethingElse", "severity=critical"), "everybody-else"),
    ],
)
def test_the_alertmanager_example_sends_alerts_where_it_says(
    alertmanager: Path, labels: tuple[str, ...], receiver: str
) -> None:
    routed = output_of("amtool", "config", "routes", "test", f"--config.file={alertmanager}", *labels)
    assert routed.split()[0] == receiver
