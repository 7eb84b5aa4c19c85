"""The guard inside a real MLflow server: what gets past it, and what does not."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import pytest
from approvals import a_key, an_attestation
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow_server import MlflowServer

from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.policy_files import DEFAULT
from gate.domain.checkpoint import version_identity
from gate.registry_guard import Guard
from gate.settings import Settings

ALIAS = "mlflow/registered-models/alias"
STAGE = "mlflow/model-versions/transition-stage"
TEAM_RULES = """\
rules:
  - {name: close, measurement: displacement_relative, at_most: 0.01, reason: expected it close to its base}
"""


class Guarded:
    """A running guarded server, its client, and the gate's key."""

    def __init__(self, server: MlflowServer, private: Path, stranger: Path) -> None:
        self.uri = server.uri
        self.client = MlflowClient(server.uri)
        self.private = private
        self.stranger = stranger
        self._made = 0

    def register(self, name: str | None = None) -> MlflowVersion:
        """A version of a new registered model, or the next one of a given one."""
        self._made += 1
        if name is None:
            name = f"größe {self._made}"
            self.client.create_registered_model(name)
        return self.client.create_model_version(name, f"s3://bucket/{self._made}", tags={"team": "nlp"})

    def attest(self, version: MlflowVersion, value: str) -> None:
        self.client.set_model_version_tag(version.name, version.version, "gate.vsa", value)

    def approve(self, version: MlflowVersion) -> None:
        self.attest(version, an_attestation(self.private, identity(version)))

    def post(self, path: str, body: object, prefix: str = "api/2.0") -> httpx.Response:
        return httpx.post(f"{self.uri}/{prefix}/{path}", json=body, timeout=60, follow_redirects=True)


def identity(version: MlflowVersion) -> str:
    return version_identity(version.name, str(version.version), version.creation_timestamp, version.source)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    private, public = a_key(folder)
    stranger, _ = a_key(folder, "stranger")
    policy = folder / "policy.yaml"
    policy.write_text(
        DEFAULT.read_text().replace("stages: [Production]", "stages: [Production]\n  registered_models: [prod.llm]")
    )
    server = MlflowServer(
        folder,
        registry_uri=f"gate+sqlite:///{folder}/mlflow.db",
        environment={"GATE_TRUSTED_KEYS_FILE": str(public), "GATE_POLICIES": str(policy)},
    )
    server.start()
    mlflow.set_tracking_uri(server.uri)
    client = MlflowClient(server.uri)
    client.create_registered_model("prod.llm")
    yield Guarded(server, private, stranger)
    server.stop()


def test_what_is_not_protected_stays_free(guarded: Guarded) -> None:
    version = guarded.register()

    guarded.client.set_registered_model_alias(version.name, "challenger", "1")
    guarded.post(STAGE, {"name": version.name, "version": "1", "stage": "Staging"}).raise_for_status()

    assert guarded.client.get_model_version_by_alias(version.name, "challenger").current_stage == "Staging"


def test_an_approved_version_gets_alias_stage_and_copy(guarded: Guarded) -> None:
    version = guarded.register()
    guarded.approve(version)

    guarded.client.set_registered_model_alias(version.name, "champion", "01")
    guarded.post(STAGE, {"name": version.name, "version": "1", "stage": "Production"}).raise_for_status()
    copy = guarded.client.copy_model_version(f"models:/{version.name}/1", "prod.llm")
    guarded.client.set_registered_model_alias("prod.llm", "champion", copy.version)

    assert guarded.client.get_model_version_by_alias(version.name, "champion").version == "1"
    assert guarded.client.get_model_version_by_alias("prod.llm", "champion").version == copy.version
    assert copy.tags == {"team": "nlp"}, "the gate's tags do not travel with a copy"


def test_a_copy_does_not_inherit_the_approval_of_a_later_model_of_the_same_name(guarded: Guarded) -> None:
    bad = guarded.register()
    guarded.client.create_registered_model("shelter")
    copy = guarded.client.copy_model_version(f"models:/{bad.name}/1", "shelter")
    guarded.client.delete_registered_model(bad.name)
    guarded.client.create_registered_model(bad.name)
    good = guarded.client.create_model_version(bad.name, "s3://bucket/good")
    guarded.approve(good)

    with pytest.raises(MlflowException, match="no verdict yet"):
        guarded.client.set_registered_model_alias("shelter", "champion", copy.version)


def test_a_real_prompt_may_hold_the_alias(guarded: Guarded) -> None:
    prompt = mlflow.genai.register_prompt("greeting", "Say hello to {{name}}")
    mlflow.genai.set_prompt_alias("greeting", "production", prompt.version)

    assert mlflow.genai.load_prompt("prompts:/greeting@production").version == prompt.version


def test_the_gates_own_reading_of_a_version_has_the_identity_that_the_guard_asks_for(guarded: Guarded) -> None:
    version = guarded.register()
    seen = MlflowRegistry(Settings(mlflow_tracking_uri=guarded.uri)).version(version.name, version.version)
    guarded.attest(version, an_attestation(guarded.private, seen.identity))

    guarded.client.set_registered_model_alias(version.name, "champion", "1")

    assert guarded.client.get_model_version_by_alias(version.name, "champion").version == "1"


def test_a_parent_that_is_changed_is_known_where_only_its_child_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper = tmp_path / "organisation.yaml"
    upper.write_text(f"layer: organisation\n{DEFAULT.read_text()}")
    child = tmp_path / "team.yaml"
    child.write_text("name: team-chat\nlayer: team\nparent: default\n" + TEAM_RULES)
    monkeypatch.setenv("GATE_POLICIES", str(child))
    guard = Guard()
    before = guard.rulebook("x").policies.policies[0]

    tighter = upper.read_text().replace("at_most: 0.25", "at_most: 0.125")
    upper.write_text(tighter)
    after = guard.rulebook("x").policies.policies[0]

    assert after.name == before.name == "team-chat"
    limits = [rule.at_most for each in (before, after) for rule in each.rules if rule.name == "still-a-fine-tune"]
    assert limits == [0.25, 0.125]
