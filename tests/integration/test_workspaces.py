"""An MLflow server with workspaces: each of them is guarded, an approval stays in its own, a gate looks at one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from approvals import a_key, an_attestation
from mlflow_server import MlflowServer

from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.policy_files import DEFAULT
from gate.domain.checkpoint import version_identity
from gate.settings import Settings

OTHER = "team-a"
ALIAS, STAGE, RENAME = "registered-models/alias", "model-versions/transition-stage", "registered-models/rename"
MODEL, VERSION, TAG = "registered-models/create", "model-versions/create", "model-versions/set-tag"


class Workspaces:
    """A guarded server with two workspaces; in each a model `llm` with one version, that of the default one approved."""

    def __init__(self, folder: Path) -> None:
        self.private, public = a_key(folder)
        policy = folder / "policy.yaml"
        policy.write_text(
            DEFAULT.read_text().replace("stages: [Production]", "stages: [Production]\n  registered_models: [prod.llm]")
        )
        self.server = MlflowServer(
            folder,
            registry_uri=f"gate+sqlite:///{folder}/mlflow.db",
            environment={
                "MLFLOW_ENABLE_WORKSPACES": "true",
                "GATE_TRUSTED_KEYS_FILE": str(public),
                "GATE_POLICIES": str(policy),
            },
        )
        self.server.start()
        self.client = httpx.Client(base_url=self.server.uri, timeout=60)
        self.client.post("/api/3.0/mlflow/workspaces", json={"name": OTHER}).raise_for_status()
        for workspace in ("default", OTHER):
            for name in ("llm", "prod.llm"):
                self.post(MODEL, {"name": name}, workspace).raise_for_status()
            self.post(VERSION, {"name": "llm", "source": "s3://bucket/1"}, workspace).raise_for_status()
        self.approval = self.attest("default")

    def close(self) -> None:
        self.client.close()
        self.server.stop()

    def post(self, path: str, body: object, workspace: str, prefix: str = "api/2.0") -> httpx.Response:
        return self.client.post(f"/{prefix}/mlflow/{path}", json=body, headers={"X-MLFLOW-WORKSPACE": workspace})

    def get(self, workspace: str) -> dict[str, object]:
        given = {"params": {"name": "llm", "version": "1"}, "headers": {"X-MLFLOW-WORKSPACE": workspace}}
        reply = self.client.get("/api/2.0/mlflow/model-versions/get", **given)
        return dict(reply.raise_for_status().json()["model_version"])

    def attest(self, workspace: str, approval: str | None = None) -> str:
        """Writes the version's own approval into its tags, or another one."""
        row = self.get(workspace)
        own = an_attestation(self.private, version_identity("llm", "1", row["creation_timestamp"], row["source"]))
        body = {"name": "llm", "version": "1", "key": "gate.vsa", "value": approval or own}
        self.post(TAG, body, workspace).raise_for_status()
        return own


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspaces]:
    made = Workspaces(tmp_path_factory.mktemp("workspaces"))
    yield made
    made.close()


CHAMPION = {"name": "llm", "alias": "champion", "version": "1"}
ACTS: dict[str, Callable[[Workspaces], httpx.Response]] = {
    "alias": lambda w: w.post(ALIAS, CHAMPION, OTHER),
    "alias by the other prefix": lambda w: w.post(ALIAS, CHAMPION, OTHER, "ajax-api/2.0"),
    "alias spelt otherwise": lambda w: w.post(ALIAS, CHAMPION | {"alias": "Chämpion"}, OTHER),
    "stage": lambda w: w.post(
        STAGE, {"name": "llm", "version": "1", "stage": "Production", "archive_existing_versions": False}, OTHER
    ),
    "copy": lambda w: w.post(VERSION, {"name": "prod.llm", "source": "models:/llm/1"}, OTHER),
    "rename": lambda w: w.post(RENAME, {"name": "llm", "new_name": "Prod.LLM"}, OTHER),
}


@pytest.mark.parametrize("name", ACTS)
def test_another_workspace_is_guarded_like_the_default_one_and_the_refusal_names_it(
    workspaces: Workspaces, name: str
) -> None:
    reply = ACTS[name](workspaces)

    assert reply.status_code == 403
    assert "[basin-gate]" in reply.text
    assert f"in workspace '{OTHER}', which needs a gate of its own, is refused" in reply.text
    assert "aliases" not in workspaces.get(OTHER)


def test_an_approval_is_of_no_use_in_another_workspace(workspaces: Workspaces) -> None:
    workspaces.attest(OTHER, workspaces.approval)

    assert "is refused" in workspaces.post(ALIAS, CHAMPION, OTHER).text
    assert workspaces.post(ALIAS, CHAMPION, "default").status_code == 200
    assert workspaces.get("default")["aliases"] == ["champion"]


def test_a_workspace_that_is_not_there_holds_nothing(workspaces: Workspaces) -> None:
    assert workspaces.post(ALIAS, CHAMPION, "nowhere").status_code == 404


def test_a_gate_looks_at_the_workspace_that_mlflows_own_variable_names(
    workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry(Settings(mlflow_tracking_uri=workspaces.server.uri))
    seen = []
    for workspace in ("default", OTHER):
        monkeypatch.setenv("MLFLOW_WORKSPACE", workspace)
        (version,) = registry.versions_page("")[0]
        assert version.created_ms == workspaces.get(workspace)["creation_timestamp"]
        assert registry.version("llm", "1").identity == version.identity
        assert set(registry.holdings("")[0]) == {"llm", "prod.llm"}
        seen.append(version.identity)

    assert len(set(seen)) == 2
