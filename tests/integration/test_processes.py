"""The API and the dispatcher as they are started, with nothing around them answering."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fastapi.testclient import TestClient
from held_ports import free_port

from gate.api.app import build_app
from gate.domain.errors import InvalidInput
from gate.settings import Settings


@pytest.fixture
def alone(tmp_path):
    """Settings whose MLflow and broker do not exist."""
    return {
        "GATE_STATE_DIR": str(tmp_path),
        "GATE_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "GATE_BROKER_URL": f"redis+socket://{tmp_path}/no.sock",
        "GATE_WEBHOOK_SECRETS": "new, old",
    }


def test_the_dispatcher_outlives_whatever_does_not_answer_and_ends_on_sigterm(alone, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gate", "dispatcher"], env=os.environ | alone, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 300
        while log.read_text().count("reconciler could not finish") < 4:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
        assert "dispatcher stopped" in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_the_api_is_built_from_settings_and_ready_without_a_broker(alone, monkeypatch):
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.secrets_of_webhook() == ("new", "old")
    reply = TestClient(build_app(settings)).get("/readyz")
    assert (reply.status_code, reply.json()["status"]) == (200, "ready")
    assert "broker does not answer" in reply.json()["broker"]


def test_the_api_does_not_start_without_a_webhook_secret(tmp_path):
    with pytest.raises(InvalidInput, match="GATE_WEBHOOK_SECRETS"):
        build_app(Settings(state_dir=tmp_path, webhook_secrets=None))


def test_webhook_secrets_are_read_from_a_file_too(tmp_path):
    (tmp_path / "secrets").write_text("one\n\ntwo\none\n")
    assert Settings(webhook_secrets="zero", webhook_secrets_file=tmp_path / "secrets").secrets_of_webhook() == (
        "zero",
        "one",
        "two",
    )
