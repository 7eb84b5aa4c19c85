"""Verifying registered versions against a real MLflow server: what a deploy job or an init container runs."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from approvals import a_key, an_attestation
from builders import a_checkpoint
from mlflow import MlflowClient

from gate.adapters.folder_digests import folder_digests
from gate.adapters.mlflow_registry import MlflowRegistry
from gate.adapters.signing import Verifier
from gate.domain.enforcement import TAG_ATTESTATION
from gate.domain.errors import NotFound
from gate.domain.reference import parse_reference
from gate.domain.verification import SIDECAR, Verification
from gate.settings import Settings
from gate.verify import FolderCheck, verified_folder

FILES = {"config.json": b"{}", "model.safetensors": b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "deep/er/notes ü.txt": b"x"}


class Registered:
    """A registered version with files, its approval, and what verifies it."""

    def __init__(self, uri: str, room: Path) -> None:
        self.uri, self.room = uri, room
        self.client = MlflowClient(uri, uri)
        self.private, self.keys = a_key(room)
        self.check = FolderCheck(Verifier.from_file(self.keys))
        self.registry = MlflowRegistry(Settings(mlflow_tracking_uri=uri), upload_patience_s=0)
        self.name = f"help desk ✓ {uuid.uuid4().hex[:6]}"
        self.run = self.client.create_run("0").info
        self.folder = room / "made"
        for path, content in FILES.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(content)
        self.client.log_artifacts(self.run.run_id, str(self.folder), "model")
        self.client.create_registered_model(self.name)
        self.number = self.version()
        self.client.set_registered_model_alias(self.name, "champion", self.number)

    def version(self) -> str:
        source = f"{self.run.artifact_uri}/model"
        return str(self.client.create_model_version(self.name, source, self.run.run_id).version)

    def approval(self, number: str) -> str:
        candidate = a_checkpoint(files=folder_digests(self.folder))
        identity = self.registry.version(self.name, number).identity
        return an_attestation(self.private, identity, candidate, candidate_digest=candidate.digest)

    def attest(self, number: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, number, TAG_ATTESTATION, value)

    def verify(self, suffix: str = "/1", into: Path | None = None) -> Verification:
        return self.check.version(self.registry, parse_reference(f"models:/{self.name}{suffix}"), into)


@pytest.fixture
def registered(mlflow_server, tmp_path):
    made = Registered(mlflow_server.uri, tmp_path)
    made.attest("1", made.approval("1"))
    return made


def test_an_approved_version_is_verified_by_number_and_by_alias(registered):
    for suffix in ("/1", "@champion"):
        found = registered.verify(suffix)
        assert (found.verified, found.files, found.reasons) == (True, 3, ())


def test_what_was_fetched_and_verified_stays_with_its_attestation(registered, tmp_path):
    into = tmp_path / "models" / "current"
    assert registered.verify(into=into).verified
    assert verified_folder(into, None, registered.keys, expect=f"models:/{registered.name}/1").passed
    assert registered.verify(into=into).verified
    (into / "config.json").write_bytes(b"[]")
    assert "config.json was changed since it was judged" in registered.verify(into=into).reasons
    assert (into / "config.json").read_bytes() == b"[]"


def test_artifacts_changed_after_the_verdict_are_refused_and_none_of_them_left(registered, tmp_path):
    registered.client.log_text(registered.run.run_id, "EVIL", "model/config.json")
    registered.client.log_text(registered.run.run_id, "EVIL", "model/more.py")
    found = registered.verify(into=tmp_path / "current")
    assert found.reasons == ("config.json was changed since it was judged", "more.py was never judged")
    assert not (tmp_path / "current").exists()


def test_an_approval_replayed_on_another_version_is_refused_without_fetching(registered, tmp_path):
    second = registered.version()
    registered.attest(second, registered.approval("1"))
    found = registered.verify(f"/{second}", tmp_path / "current")
    assert (found.verified, found.files) == (False, 0)
    assert "expected an attestation of" in found.reasons[0]


def test_a_version_without_a_verdict_is_refused(registered):
    assert "carries no attestation" in registered.verify(f"/{registered.version()}").reasons[0]


def test_a_version_or_alias_that_is_not_there_is_no_answer(registered):
    for suffix in ("/77", "@nobody"):
        with pytest.raises(NotFound):
            registered.verify(suffix)


def test_the_command_fetches_verifies_and_answers_by_its_status(registered, tmp_path):
    environment = {
        "GATE_MLFLOW_TRACKING_URI": registered.uri,
        "GATE_TRUSTED_KEYS_FILE": str(registered.keys),
        "COLUMNS": "300",
    }
    command = (sys.executable, "-m", "gate", "verify", f"models:/{registered.name}@champion", "--into")
    ended = []
    for folder in ("first", "second"):
        run = subprocess.run(
            (*command, str(tmp_path / folder)),
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        ended.append((run.returncode, run.stdout.split(":")[0], (tmp_path / folder / SIDECAR).exists()))
        registered.client.log_text(registered.run.run_id, "EVIL", "model/config.json")
    assert ended == [(0, "verified", True), (1, "refused", False)]
