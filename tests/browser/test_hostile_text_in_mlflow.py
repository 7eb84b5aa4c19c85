"""What strangers wrote is shown inert in MLflow's own pages, wherever the gate put it there."""

import uuid
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from api_stand import Stand, a_stand, judged
from builders import a_prompt, an_evidence, some_prompts
from chromium import Seen, needs_chromium
from mlflow import MlflowClient
from mlflow_server import MlflowServer
from playwright.sync_api import Page, expect

from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.standing import Standing
from gate.dispatcher.projection import Projector
from gate.domain.checkpoint import ModelVersion
from gate.domain.prompts import Option
from gate.domain.verdict import Outcome
from gate.settings import Settings

pytestmark = needs_chromium

ATTACK = (
    "<script>top.taken = alert(1)</script><img src=x onerror=\"top.taken = alert(2)\"><svg onload='top.taken = alert(3)'>"
    "[go](javascript:alert(4)) ![](x) `code` | cell\x1b[31mred\x1b]8;;http://evil\x07\u202e\u2066reversed"
)
LONG = ATTACK + "x" * 1_000_000
# MLflow's own rules for a name leave out slashes and colons.
NAME = '<img src=x onerror="top.taken = alert(5)">\x1b[31m\u202egnp.<b>'
CONTROLS = {"\x1b", "\x07", "\u202e", "\u2066"}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = a_stand(tmp_path_factory.mktemp("hostile"))
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def client(mlflow_server: MlflowServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture(scope="module")
def version(stand: Stand, client: MlflowClient, mlflow_server: MlflowServer) -> ModelVersion:
    """A hostile version, blocked, whose verdict the gate has written to MLflow."""
    registry = MlflowRegistry(
        Settings(mlflow_tracking_uri=mlflow_server.uri, mlflow_experiment=f"gate {uuid.uuid4().hex[:6]}")
    )
    name = f"{NAME} {uuid.uuid4().hex[:6]}"
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/hostile", tags={"team": ATTACK})
    prompts = some_prompts(
        a_prompt(prompt=ATTACK, candidate=LONG, options=(Option(text=ATTACK, base=-1.0, candidate=None),)),
        capability=f"safety {ATTACK}",
    )
    asked = registry.version(name, "1")
    judged(
        stand,
        asked,
        evidence=an_evidence(base_name=ATTACK, prompts_sha256=prompts.digest),
        prompts=prompts,
        outcome=Outcome.BLOCKED,
        reason=LONG,
        projected=False,
    )
    key = stand.ledger.evaluations(1, name=name)[0].request.key
    projector = Projector(Standing(stand.ledger, stand.door.policies), registry, stand.clock)
    assert projector.project(key) == "written"
    return registry.version(name, "1")


@pytest.fixture
def seen(view: Callable[..., Seen]) -> Iterator[Seen]:
    """A window in which nothing foreign ran: no dialog, no mark of the attack, no request for its picture."""
    opened = view(viewport={"width": 1500, "height": 900})
    yield opened
    assert opened.page.evaluate("window.taken") is None
    assert [each for each in opened.complaints if "dialog" in each or "taken" in each or "inline script" in each] == []
    assert not any(each.endswith("/x") or "evil" in each for each in opened.asked)


def test_the_versions_page_shows_the_gates_words_and_none_of_the_attack(
    seen: Seen, version: ModelVersion, client: MlflowClient, mlflow_server: MlflowServer
) -> None:
    page = seen.go(f"{mlflow_server.uri}/#/models/{quote(version.name, safe='')}/versions/1")
    said = page.get_by_text("Basin Gate: blocked.").first
    expect(said).to_contain_text("<script>top.taken = alert(1)</script><img src=x")
    expect(said).to_contain_text("[go](javascript:alert(4)) ![](x) `code` | cell [31mred")
    assert said.locator("img, script, svg, a[href^=javascript]").count() == 0
    expect(page.get_by_role("link", name="report and evidence")).to_be_visible()
    expect(page.get_by_text("gate.reason").first).to_be_visible()
    kept = client.get_model_version(version.name, "1")
    assert not CONTROLS & set(kept.description + kept.tags["gate.reason"])
    assert max(len(value) for key, value in kept.tags.items() if key != "gate.vsa") < 400


def opened(page: Page, name: str) -> None:
    """Chooses a file of a run in MLflow's list of them."""
    page.get_by_text(name, exact=True).first.click()


def test_the_runs_files_show_the_attack_as_text(
    seen: Seen, version: ModelVersion, client: MlflowClient, mlflow_server: MlflowServer
) -> None:
    run = client.get_run(version.tags["gate.run_id"]).info
    page = seen.go(f"{mlflow_server.uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/report.html")
    frame = page.frame_locator("iframe.mlflow-html-iframe")
    expect(frame.locator("h1")).to_contain_text("Blocked")
    assert frame.locator(".hero .mark").evaluate("e => getComputedStyle(e).borderRadius") == "50%"
    assert "<script>top.taken = alert(1)</script>" in frame.locator(".hero").inner_text()

    opened(page, "report.md")
    expect(page.get_by_role("heading", name="Blocked")).to_contain_text("<img src=x onerror=")
    said = page.get_by_text("<script>top.taken = alert(1)</script>").first
    expect(said).to_contain_text("[go](javascript:alert(4)) ![](x) `code` | cell [31mred")
    assert page.locator("a[href^=javascript], img[src=x]").count() == 0

    opened(page, "prompts.json")
    expect(page.get_by_text(f"safety {ATTACK[:16]}").first).to_be_visible()
    files = {each.path: each.file_size for each in client.list_artifacts(run.run_id)}
    assert max(size for path, size in files.items() if path.startswith(("report", "prompts"))) < 100_000
