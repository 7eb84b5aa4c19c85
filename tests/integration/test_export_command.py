"""Exports through the API and the command line."""

import json
import sys

import pytest
from api_stand import a_stand, judged, served
from builders import an_evidence
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from gate.cli import main
from gate.settings import Settings


@pytest.fixture
def stand(tmp_path):
    made = a_stand(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs ``basin-gate export`` against a gate; the exit status and the output."""

    def ran(url: str, *words: str) -> tuple[object, str]:
        monkeypatch.setattr("gate.export.settings", lambda: Settings(public_url=url))
        monkeypatch.setattr(sys, "argv", ["basin-gate", "export", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    return ran


def test_a_verdict_is_exported_in_both_forms_whatever_the_models_name(stand, run, tmp_path):
    judged(stand, stand.register(name="team/help desk ✓", version="7"), evidence=an_evidence())
    target, file = "models:/team%2Fhelp desk ✓/7", tmp_path / "bom.cdx.json"
    with served(stand) as url:
        assert run(url, target, "--format", "cyclonedx")[0] == 2
        reply = stand.client.get("/v1/exports/cyclonedx/team%2Fhelp desk ✓/7")
    assert reply.headers["content-type"] == "application/vnd.cyclonedx+json; version=1.6"
    assert reply.json()["metadata"]["component"]["name"] == "team/help desk ✓"
    judged(stand, stand.register(name="help desk ✓", version="7"), evidence=an_evidence(key="e" * 64))
    with served(stand) as url:
        assert run(url, "models:/help desk ✓/7", "--format", "cyclonedx", "--output", str(file)) == (0, "")
        status, page = run(url, "models:/help desk ✓/7", "--format", "model-card")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read_text()) is None
    assert json.loads(file.read_text())["metadata"]["component"]["version"] == "7"
    assert (status, page.splitlines()[0]) == (0, "## Promotion gate")


def test_what_has_no_verdict_or_no_evidence_is_not_exported(stand):
    stand.register(version="3")
    assert stand.client.get("/v1/exports/cyclonedx/my-llm/3").status_code == 404
    stand.tell("model_version.created", name="my-llm", version="3")
    assert "a verdict" in stand.client.get("/v1/exports/cyclonedx/my-llm/3").json()["detail"]
    judged(stand, stand.register(name="other", version="1"))
    assert "evidence" in stand.client.get("/v1/exports/model-card/other/1").json()["detail"]
    assert stand.client.get("/v1/exports/spreadsheet/other/1").status_code == 422
