"""The guard beside MLflow's own authentication: not even an administrator promotes what is not approved."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from approvals import a_key, an_attestation
from mlflow_server import MlflowServer

from gate.domain.checkpoint import version_identity

pytest.importorskip("flask_wtf", reason="MLflow's authentication needs mlflow[auth]")

ADMIN = ("admin", "a long enough password")
GATE = ("gatebot", "another long password")
API = "api/2.0/mlflow"


class AuthenticatingServer(MlflowServer):
    """The same server with ``--app-name basic-auth``."""

    anew = True

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--app-name", "basic-auth"]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_key(tmp_path_factory.mktemp("keys"))[0]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, private: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("authenticating")
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests only",
        "GATE_TRUSTED_KEYS_FILE": str(private.with_name("gate.pub.pem")),
        "GATE_GUARD_TAG_WRITERS": GATE[0],
    }
    server = AuthenticatingServer(folder, registry_uri=f"gate+sqlite:///{folder}/mlflow.db", environment=environment)
    server.start()
    yield server.uri
    server.stop()


def test_an_administrator_neither_promotes_nor_writes_a_verdict_and_the_gates_user_does(
    uri: str, private: Path
) -> None:
    admin, gate = httpx.Client(base_url=uri, auth=ADMIN, timeout=60), httpx.Client(base_url=uri, auth=GATE, timeout=60)
    admin.post(f"{API}/users/create", json={"username": GATE[0], "password": GATE[1]}).raise_for_status()
    admin.post(f"{API}/registered-models/create", json={"name": "llm"}).raise_for_status()
    made = admin.post(f"{API}/model-versions/create", json={"name": "llm", "source": "s3://bucket/a"}).json()
    version = made["model_version"]
    identity = version_identity("llm", "1", version["creation_timestamp"], version["source"])
    tag = {"name": "llm", "version": "1", "key": "gate.vsa", "value": an_attestation(private, identity)}
    alias = {"name": "llm", "alias": "champion", "version": "1"}

    assert admin.post(f"{API}/registered-models/alias", json=alias).status_code == 403
    refused = admin.post(f"{API}/model-versions/set-tag", json=tag)
    assert (refused.status_code, "written by gatebot only" in refused.text) == (403, True)
    gate.post(f"{API}/model-versions/set-tag", json=tag).raise_for_status()
    admin.post(f"{API}/registered-models/alias", json=alias).raise_for_status()

    aliases = admin.get(f"{API}/registered-models/get", params={"name": "llm"}).json()["registered_model"]["aliases"]
    assert aliases == [{"alias": "champion", "version": "1"}]
