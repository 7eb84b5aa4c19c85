"""The Grafana dashboard: its queries ask for what the product tells, and its panels are of an importable shape."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from exposed_metrics import unknown_in
from prometheus_tools import output_of

DASHBOARD = Path(__file__).parents[2] / "charts" / "basin-gate" / "files" / "dashboard.json"
BOARD = json.loads(DASHBOARD.read_text())
ROWS = [panel for panel in BOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def queries(panel: Any) -> list[str]:
    """A panel's expressions, with Grafana's interval given."""
    return [target["expr"].replace("$__rate_interval", "5m") for target in panel["targets"]]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_only_for_what_the_product_tells(panel: Any) -> None:
    assert [wrong for query in queries(panel) for wrong in unknown_in(query)] == []
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "heatmap"
    assert {str(each["datasource"]) for each in (panel, *panel["targets"])} == {str(SOURCE)}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    expressions = [query for panel in PANELS for query in queries(panel)]
    rules = [{"record": f"panel:number_{n}", "expr": each} for n, each in enumerate(expressions)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in output_of("promtool", "check", "rules", str(tmp_path / "rules.yaml"))


def test_the_rows_are_what_an_operator_looks_for() -> None:
    titles = ["Verdicts", "Latency", "Queue", "Workers", "Enforcement", "Basin"]
    assert [row["title"] for row in ROWS] == titles


def test_the_data_source_is_chosen_when_the_dashboard_is_opened() -> None:
    (variable,) = BOARD["templating"]["list"]
    assert (variable["type"], variable["query"], variable["name"]) == ("datasource", "prometheus", "datasource")
    assert BOARD["id"] is None


def test_no_two_panels_lie_on_each_other_and_none_beside_the_page() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in BOARD["panels"]), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
