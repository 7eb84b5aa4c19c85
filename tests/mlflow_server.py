"""A real MLflow server as a child process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """``start`` returns when it answers; ``stop`` ends its whole process group; it can be started again."""

    def __init__(
        self,
        folder: Path,
        *,
        database: str | None = None,
        registry_uri: str | None = None,
        environment: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        self.folder = folder
        self.uri = f"http://127.0.0.1:{free_port()}"
        self.database = database or f"sqlite:///{folder}/mlflow.db"
        self._registry_uri = registry_uri or self.database
        self._workers = workers
        self._environment = {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "MLFLOW_WEBHOOK_CACHE_TTL": "0",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, limit_s: float = 180.0) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + limit_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"MLflow did not start:\n{self.log()}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is None:
            return
        # It may have ended by itself, port taken or configuration refused: the caller then shows its log.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-4000:]

    def _command(self) -> list[str]:
        host, port = self.uri.removeprefix("http://").split(":")
        return [
            *(
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                host,
                "--port",
                port,
                "--workers",
                str(self._workers),
            ),
            *("--backend-store-uri", self.database, "--registry-store-uri", self._registry_uri),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False
