"""A real MLflow server as a child process."""

import contextlib
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.fernet import Fernet
from held_ports import free_port
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow_forks import forks


@cache
def an_empty_store() -> TemporaryDirectory[str]:
    """A folder with `mlflow.db`, which MLflow's own migrations made: they take seconds, so once in a process."""
    folder = TemporaryDirectory(prefix="mlflow-empty-")
    SqlAlchemyStore(f"sqlite:///{folder.name}/mlflow.db").engine.dispose()
    return folder


class MlflowServer:
    """``start`` returns when it answers; ``stop`` ends its whole process group; it can be started again."""

    anew = False
    """Whether the server imports MLflow for itself: for what MLflow reads from the environment while it is imported."""

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
        self._process: int | None = None
        self._starts = 0

    def start(self, limit_s: float = 500.0) -> None:
        store = Path(self.database.removeprefix("sqlite:///"))
        if self.database.startswith("sqlite:///") and not store.exists():
            shutil.copyfile(Path(an_empty_store().name) / "mlflow.db", store)
        environment, log = os.environ | self._environment, self.folder / "server.log"
        self._process = forks().start(self._arguments(), environment, log, anew=self.anew)
        self._starts += 1
        deadline = time.monotonic() + limit_s
        while not (self._answers() and self._all_up()):
            if not self._runs() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"MLflow did not start:\n{self.log()}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is None:
            return
        # It may have ended by itself, port taken or configuration refused: the caller then shows its log.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        while self._runs():
            time.sleep(0.01)
        self._process = None

    def _runs(self) -> bool:
        try:
            os.kill(self._process or 0, 0)
        except ProcessLookupError:
            return False
        return True

    def log(self) -> str:
        return self._text()[-4000:]

    def _arguments(self) -> list[str]:
        host, port = self.uri.removeprefix("http://").split(":")
        return [
            *("--host", host, "--port", port, "--workers", str(self._workers)),
            *("--backend-store-uri", self.database, "--registry-store-uri", self._registry_uri),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]

    def _all_up(self) -> bool:
        # One process of several answers while the others are still importing.
        return self._workers == 1 or self._text().count("Application startup complete") >= self._starts * self._workers

    def _text(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False
