"""The guard inside a real MLflow server: what gets past it, and what does not."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from gate.domain.attestation import instant
from gate.domain.checkpoint import version_identity
from gate.domain.verdict import Outcome
from gate.settings import Settings

ALIAS = "mlflow/registered-models/alias"
STAGE = "mlflow/model-versions/transition-stage"


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


@pytest.mark.parametrize("alias", ["champion", "Champion", "chämpion", "PRODUCTION", "approved", "ｃｈａｍｐｉｏｎ"])
def test_a_protected_alias_in_any_spelling_is_refused_without_an_approval(guarded: Guarded, alias: str) -> None:
    version = guarded.register()

    with pytest.raises(MlflowException, match="has no verdict yet") as refused:
        guarded.client.set_registered_model_alias(version.name, alias, version.version)

    assert refused.value.get_http_status_code() == 403
    assert not guarded.client.get_registered_model(version.name).aliases


@pytest.mark.parametrize("prefix", ["api/2.0", "ajax-api/2.0", "/api//2.0", "%61pi/2.0"])
@pytest.mark.parametrize("number", ["1", "01", "1 "])
def test_no_path_and_no_spelling_of_the_version_gets_past_the_guard(guarded: Guarded, prefix: str, number: str) -> None:
    version = guarded.register()

    reply = guarded.post(ALIAS, {"name": version.name, "alias": "champion", "version": number}, prefix)

    assert reply.status_code == 403
    assert not guarded.client.get_registered_model(version.name).aliases


def test_a_body_that_is_json_within_json_is_refused_too(guarded: Guarded) -> None:
    version = guarded.register()
    body = json.dumps({"name": version.name, "alias": "champion", "version": "1"})

    assert guarded.post(ALIAS, body).status_code == 403


@pytest.mark.parametrize("prefix", ["api/2.0", "ajax-api/2.0"])
@pytest.mark.parametrize("stage", ["Production", "production", "PRODUCTION"])
def test_a_protected_stage_is_refused(guarded: Guarded, prefix: str, stage: str) -> None:
    version = guarded.register()
    body = {"name": version.name, "version": "1", "stage": stage, "archive_existing_versions": False}

    assert guarded.post(STAGE, body, prefix).status_code == 403
    assert guarded.client.get_model_version(version.name, "1").current_stage == "None"


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


def test_a_copy_of_what_is_not_approved_is_refused_by_every_way_in(guarded: Guarded) -> None:
    version = guarded.register()
    body = {"name": "prod.llm", "source": f"models:/{version.name}/1"}

    assert guarded.post("mlflow/model-versions/create", body).status_code == 403
    assert guarded.post("mlflow/model-versions/create", {"name": "prod.llm", "source": "s3://x/y"}).status_code == 403
    with pytest.raises(MlflowException, match=r"is refused: models:/.* is not approved"):
        guarded.client.copy_model_version(f"models:/{version.name}/1", "prod.llm")


def test_a_rename_neither_takes_a_protected_name_nor_carries_a_protected_alias(guarded: Guarded) -> None:
    plain, promoted = guarded.register(), guarded.register()
    guarded.approve(promoted)
    guarded.client.set_registered_model_alias(promoted.name, "champion", "1")

    for name, new_name in ((plain.name, "PROD.llm"), ("prod.llm", "old"), (promoted.name, "elsewhere")):
        with pytest.raises(MlflowException, match="is refused") as refused:
            guarded.client.rename_registered_model(name, new_name)
        assert refused.value.get_http_status_code() == 403
    guarded.client.rename_registered_model(plain.name, "plain-renamed")
    assert guarded.client.get_model_version("plain-renamed", "1").source == plain.source


def test_an_approval_of_one_version_is_none_of_another(guarded: Guarded) -> None:
    good = guarded.register()
    bad = guarded.register(good.name)
    guarded.approve(good)
    guarded.attest(bad, guarded.client.get_model_version(good.name, "1").tags["gate.vsa"])

    with pytest.raises(MlflowException, match="attestation is for another version"):
        guarded.client.set_registered_model_alias(bad.name, "champion", bad.version)


def test_an_approval_dies_with_a_model_that_is_deleted_and_made_again(guarded: Guarded) -> None:
    first = guarded.register()
    approval = an_attestation(guarded.private, identity(first))
    guarded.client.delete_registered_model(first.name)
    guarded.client.create_registered_model(first.name)
    again = guarded.client.create_model_version(first.name, first.source)
    guarded.attest(again, approval)

    assert again.version == first.version
    with pytest.raises(MlflowException, match="another version"):
        guarded.client.set_registered_model_alias(again.name, "champion", again.version)


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


def test_expired_forged_failed_and_foreign_attestations_say_why_they_do_not_count(guarded: Guarded) -> None:
    version = guarded.register()
    at, past = identity(version), int(time.time()) - 5
    mine, blocked = guarded.private, {"outcome": Outcome.BLOCKED, "reason": "Safety fell from 1.00 to 0.00"}
    attempts = {
        an_attestation(mine, at, expires_at=past): f"expired at {instant(past)}",
        an_attestation(guarded.stranger, at): "expected a signature by a trusted key",
        an_attestation(mine, at, **blocked): "blocked by policy default: Safety fell from 1.00 to 0.00",
        an_attestation(mine, at, policy="lenient"): "its verdict is by policy lenient, expected default",
        "approved": "expected a DSSE envelope",
        '{"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}': "signed by nobody",
    }
    guarded.client.set_model_version_tag(version.name, "1", "gate.run_id", "run-42")
    for value, why in attempts.items():
        guarded.attest(version, value)
        with pytest.raises(MlflowException, match=why) as refused:
            guarded.client.set_registered_model_alias(version.name, "champion", "1")
        assert refused.value.get_http_status_code() == 403
        assert "run-42" in str(refused.value)


def test_a_version_dressed_up_as_a_prompt_is_refused(guarded: Guarded) -> None:
    version = guarded.register()
    guarded.client.set_model_version_tag(version.name, "1", "mlflow.prompt.is_prompt", "true")
    guarded.client.set_registered_model_tag(version.name, "mlflow.prompt.is_prompt", "true")

    assert guarded.post(ALIAS, {"name": version.name, "alias": "champion", "version": "1"}).status_code == 403


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


def test_none_of_many_attempts_at_once_gets_through(guarded: Guarded) -> None:
    version = guarded.register()
    body = {"name": version.name, "alias": "champion", "version": "1"}

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: guarded.post(ALIAS, body).status_code, range(24)))

    assert set(statuses) == {403}
    assert not guarded.client.get_registered_model(version.name).aliases
