"""The embedded stack with a real Prometheus that scrapes each of its processes every other second."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from held_ports import free_port
from prometheus_tools import tool

from gate.embedded import EmbeddedStack, Service

RULES = Path(__file__).parents[1] / "charts" / "basin-gate" / "files" / "alerts.yaml"
LIMIT_S = 300.0


class MonitoredStack(EmbeddedStack):
    """Every process tells of itself, each on a port of its own."""

    def __init__(self, state: Path, **settings: str) -> None:
        super().__init__(state, settings=settings)
        names = ("dispatcher", "cpu-worker", "gpu-worker")
        self.metrics_ports = {name: free_port() for name in names}

    def services(self) -> Iterator[Service]:
        for service in super().services():
            port = self.metrics_ports.get(service.name)
            given = {"GATE_METRICS_PORT": str(port)} if port else {}
            yield replace(service, environment={**service.environment, **given})

    @property
    def targets(self) -> list[str]:
        """Host and port of everything there is to scrape."""
        return [self.api_url.removeprefix("http://"), *(f"127.0.0.1:{p}" for p in self.metrics_ports.values())]


class Prometheus:
    """A Prometheus with the product's rules."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        folder.mkdir()
        config = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "basin-gate", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        command = [tool("prometheus"), f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        with (folder / "log").open("wb") as log:
            listen = f"--web.listen-address={self.address}"
            self.process = subprocess.Popen([*command, listen], stdout=log, stderr=log)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=120) as reply:
            return json.load(reply)["data"]

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=120) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def ask(self, expression: str) -> list[Mapping[str, str]]:
        """The labels of each element that an expression returns now."""
        return [element["metric"] for element in self.get("query", query=expression)["result"]]

    def value(self, expression: str) -> float | None:
        """The one number that an expression returns now, if it returns any."""
        result = self.get("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def series(self) -> set[str]:
        """Names of all the product's series that it has got."""
        return {name for name in self.get("label/__name__/values") if name.startswith("gate_")}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)


def until(reached: Callable[[], object], what: Callable[[], object]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)
