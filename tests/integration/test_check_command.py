"""``basin-gate check`` against the real API, and the consumers that the documentation shows, as they really ask."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from xml.etree import ElementTree

import pytest
import typer
import yaml
from api_stand import Stand, a_stand, judged, served
from fastapi.testclient import TestClient

from gate.check.command import check
from gate.cli import main
from gate.domain.checkpoint import ModelVersion
from gate.domain.permission import Decision
from gate.domain.policy import Policy, PolicySet
from gate.domain.records import SignedRevocation
from gate.domain.revocation import Revocation
from gate.domain.verdict import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "check-in-ci.md").read_text()
DOCUMENTS = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]
MODEL = "support-assistant"


@pytest.fixture
def stand(tmp_path):
    made = a_stand(tmp_path)
    yield made
    made.ledger.close()


@dataclass(frozen=True)
class Ended:
    """What a run of the command left behind."""

    status: object
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs ``basin-gate check`` with these words, as the shell would call it."""

    def ran(url: str, *words: str, target: str = f"models:/{MODEL}/7") -> Ended:
        monkeypatch.setattr(sys, "argv", ["basin-gate", "check", target, "--url", url, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    return ran


def registered(stand: Stand, **changes: object):
    return stand.register(name=MODEL, version="7", **changes)


@pytest.mark.parametrize(
    ("outcome", "status", "word"),
    [(Outcome.APPROVED, 0, "allowed"), (Outcome.BLOCKED, 1, "denied"), (Outcome.NEEDS_REVIEW, 3, "needs review")],
)
def test_the_verdict_is_the_exit_status(run, stand, tmp_path, outcome, status, word):
    judged(stand, registered(stand), outcome=outcome)
    with served(stand) as url:
        ended = run(
            url, "--alias", "champion", "--junit", str(tmp_path / "g.xml"), "--sarif", str(tmp_path / "g.sarif")
        )
    assert (ended.status, ended.stdout.split(":")[0]) == (status, word)
    assert ElementTree.parse(tmp_path / "g.xml").getroot()[0].get("tests") == "2"
    assert json.loads((tmp_path / "g.sarif").read_text())["version"] == "2.1.0"


def judged_once_asked(stand: Stand, version: ModelVersion) -> None:
    asked = ("gate_promotion_questions_total", {"answer": "deny"})
    deadline = time.monotonic() + 120
    while not stand.door.metrics.registry.get_sample_value(*asked) and time.monotonic() < deadline:
        time.sleep(0.05)
    judged(stand, version)


def test_waiting_ends_when_the_verdict_is_in_mlflow_and_a_pipe_gets_a_line_per_change(stand):
    version = registered(stand)
    with served(stand) as url:
        judge = Thread(target=judged_once_asked, args=(stand, version))
        judge.start()
        ended = subprocess.run(
            (sys.executable, "-m", "gate", "check", f"models:/{MODEL}/7", "--wait", "--timeout", "120", "--json"),
            env=os.environ | {"GATE_PUBLIC_URL": url, "no_proxy": "*"},
            capture_output=True,
            text=True,
            check=False,
        )
        judge.join()
    answer = json.loads(ended.stdout)
    assert (ended.returncode, answer["decision"], answer["expires_at"]) == (0, "allowed", int(stand.clock()) + 1000)
    assert 1 <= len(ended.stderr.splitlines()) <= 3
    assert "\x1b" not in ended.stderr


def test_what_cannot_be_decided_ends_with_status_2(run, stand, tmp_path):
    registered(stand)
    with served(stand) as url:
        assert run(url).status == 2
        late = run(url, "--wait", "--timeout", "1", "--junit", str(tmp_path / "late.xml"))
        assert (late.status, "within 1 s" in late.stderr) == (2, True)
        assert run(url, target=f"models:/{MODEL}/99").status == 2
        stand.registry.away = True
        assert run(url).status == 2
    assert ElementTree.parse(tmp_path / "late.xml").getroot()[0].get("errors") == "1"
    away = run(url)
    assert (away.status, "GATE_PUBLIC_URL" in away.stderr) == (2, True)


@pytest.mark.parametrize("target", [f"models:/{MODEL}@champion", f"models:/{MODEL}/latest", MODEL])
def test_a_version_is_asked_about_by_its_number_only(run, target):
    ended = run("http://127.0.0.1:9", target=target)
    assert (ended.status, "expected models:/NAME" in ended.stderr) == (2, True)


def test_an_approval_that_mlflow_does_not_carry_yet_is_pending(stand):
    judged(stand, registered(stand), projected=False)
    answer = decided(stand)
    assert (answer["decision"], answer["outcome"]) == ("pending", "approved")


def test_a_base_is_denied_since_nobody_will_ever_judge_it(stand):
    registered(stand, source="prompt-template")
    assert decided(stand)["decision"] == "denied"


def test_a_place_that_another_policy_keeps_needs_that_policys_approval(stand):
    default = stand.door.policies.policies[0]
    protected = default.protected.model_copy(update={"registered_models": ("prod.assistant",)})
    other = default.model_copy(update={"name": "other", "match": "false", "protected": protected})
    object.__setattr__(stand.door, "policies", PolicySet(policies=(default, other)))
    judged(stand, registered(stand))
    assert decided(stand)["decision"] == "allowed"
    refused = decided(stand, registered_model="prod.assistant")
    assert (refused["decision"], refused["protected"], "policy other" in refused["reason"]) == ("denied", True, True)


def test_a_place_that_is_only_watched_is_allowed_with_what_would_be_refused(run, stand):
    default = stand.door.policies.policies[0]
    watching = default.model_copy(
        update={"protected": default.protected.model_copy(update={"modes": {"champion": "warn"}})}
    )
    blocked_under(stand, watching)
    with served(stand) as url:
        ended = run(url, "--alias", "champion")
        assert (ended.status, "only watched (warn)" in ended.stdout) == (0, True)
        assert run(url, "--alias", "production").status == 1
    answer = decided(stand, alias="Chämpion")
    assert (answer["allowed"], answer["protected"], answer["would_refuse"]) == (True, True, "Safety fell.")
    for place in ({"alias": "production"}, {"registered_model": "prod.assistant"}, {}):
        assert (decided(stand, **place)["decision"], decided(stand, **place)["would_refuse"]) == ("denied", None)

    blocked_under(stand, default.model_copy(update={"enforcement": "dry_run"}))
    assert (decided(stand)["decision"], decided(stand)["would_refuse"]) == ("allowed", "Safety fell.")
    assert decided(stand, registered_model="prod.assistant")["decision"] == "denied"


def blocked_under(stand: Stand, policy: Policy) -> None:
    """A blocked version under a policy, beside another policy that keeps a registered model."""
    protected = policy.protected.model_copy(update={"modes": {}, "registered_models": ("prod.assistant",)})
    other = policy.model_copy(
        update={"name": "other", "match": "false", "enforcement": "enforce", "protected": protected}
    )
    both = PolicySet(policies=(policy, other))
    object.__setattr__(stand.door, "policies", both)
    object.__setattr__(stand.door.standing, "policies", both)
    judged(stand, registered(stand), outcome=Outcome.BLOCKED)


def test_a_misspelt_alias_is_answered_as_if_it_were_kept(stand):
    judged(stand, registered(stand), outcome=Outcome.BLOCKED)
    answer = decided(stand, alias="champoin")
    assert (answer["decision"], answer["protected"], answer["place"]) == ("denied", False, "alias 'champoin'")
    assert answer["reasons"] == ["Safety fell."]


def decided(stand: Stand, **place: str) -> dict[str, object]:
    reply = stand.client.post("/v1/promotions/decision", json={"name": MODEL, "version": "7", **place})
    assert reply.status_code == 200
    return reply.json()


def document(kind: str) -> dict[str, object]:
    return next(found for found in DOCUMENTS if found.get("kind") == kind)


def argo_measures(client: TestClient, metric: dict[str, object]) -> str:
    """What Argo Rollouts makes of its web metric: the phase of one measurement."""
    web = metric["provider"]["web"]
    body = web["body"].replace("{{args.model}}", MODEL).replace("{{args.version}}", "7")
    headers = {header["key"]: header["value"] for header in web["headers"]}
    path = web["url"].partition(":8500")[2]
    reply = client.request(web["method"], path, content=body, headers=headers)
    if not 200 <= reply.status_code < 300:
        return "Error"
    result = reply.json()[re.fullmatch(r"\{\$\.(\w+)\}", web["jsonPath"])[1]]
    for condition, phase in (("failureCondition", "Failed"), ("successCondition", "Successful")):
        if result in re.findall(r'result == "(\w+)"', metric[condition]):
            return phase
    return "Inconclusive"


def test_argo_rollouts_goes_on_only_where_the_gate_allows(stand):
    (metric,) = document("AnalysisTemplate")["spec"]["metrics"]
    version = registered(stand)
    assert set(re.findall(r'"(\w+)"', metric["successCondition"] + metric["failureCondition"])) <= set(Decision)
    assert argo_measures(stand.client, metric) == "Inconclusive"
    judged(stand, version)
    assert argo_measures(stand.client, metric) == "Successful"
    stand.clock.now += 5000
    assert argo_measures(stand.client, metric) == "Failed"
    stand.registry.away = True
    assert argo_measures(stand.client, metric) == "Error"


def flagger_asks(client: TestClient, hook: dict[str, object], phase: str = "Progressing") -> int:
    """The webhook that Flagger sends before it promotes a canary."""
    payload = {"name": "assistant", "namespace": "production", "phase": phase, "checksum": "85d557f47b"}
    path = hook["url"].partition(":8500")[2]
    return client.post(path, json=payload | {"metadata": hook["metadata"]}).status_code


def test_flagger_promotes_only_where_the_gate_allows(stand):
    (hook,) = document("Canary")["spec"]["analysis"]["webhooks"]
    version = registered(stand)
    assert (hook["type"], flagger_asks(stand.client, hook)) == ("confirm-promotion", 403)
    judged(stand, version)
    assert flagger_asks(stand.client, hook, "WaitingPromotion") == 200
    stand.registry.away = True
    assert flagger_asks(stand.client, hook) == 503


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"model": MODEL},
        {"model": f"models:/{MODEL}@champion"},
        {"model": f"models:/{MODEL}/7", "alias": "champion", "stage": "Production"},
        {"model": f"models:/{MODEL}/7", "alias": ""},
    ],
)
def test_a_canary_that_names_no_version_or_two_places_is_not_promoted(stand, metadata):
    judged(stand, registered(stand))
    hook = {"url": "http://gate:8500/v1/promotions/flagger", "metadata": metadata}
    assert flagger_asks(stand.client, hook) == 400


def test_the_pipelines_shown_call_the_command_as_it_is():
    app = typer.Typer()
    app.command()(check)
    command = typer.main.get_command(app)
    github = next(found for found in DOCUMENTS if "jobs" in found)["jobs"]["promote"]["steps"]
    gitlab = next(found for found in DOCUMENTS if "may-be-promoted" in found)["may-be-promoted"]["script"]
    lines = [step["run"] for step in github if "run" in step] + gitlab
    asked = [line for line in lines if line.startswith("basin-gate check ")]
    for line in asked:
        command.make_context("check", shlex.split(line)[2:])
    assert len(asked) == 2
    assert github[-1]["run"].startswith("python promote.py")


def test_a_revoked_approval_is_denied_with_the_reason(stand):
    version = registered(stand)
    judged(stand, version)
    assert decided(stand)["decision"] == "allowed"
    given = Revocation(
        subject=version.identity, candidate_digest=None, reason="it leaks names", revoked_at=int(stand.clock())
    )
    stand.ledger.revoke([SignedRevocation(version, given, {})], "operator", stand.clock())
    answer = decided(stand)
    assert (answer["decision"], "it leaks names" in answer["reason"]) == ("denied", True)
