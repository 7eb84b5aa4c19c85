"""The chart as Helm renders it: manifests of each example under ``ci/``."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "basin-gate"
EXAMPLES = sorted(file.name.removesuffix("-values.yaml") for file in (CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "basin-gate"
# What a real cluster would tell Helm of its own accord.
INSTALLED = ("keda.sh/v1alpha1", "cert-manager.io/v1", "gateway.networking.k8s.io/v1")
BIN = Path(sys.executable).parent

Manifest = Mapping[str, Any]


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs Helm; a test skips, with the reason, where it could not be installed."""
    if not (BIN / "helm").exists():
        reason = BIN / "helm.reason"
        told = (
            reason.read_text()
            if reason.exists()
            else "helm is not installed; run: python charts/install_helm.py .venv/bin"
        )
        pytest.skip(told.strip())
    return subprocess.run([BIN / "helm", *arguments], capture_output=True, text=True, timeout=300)


def template(*arguments: str | Path, installed: Sequence[str] = INSTALLED) -> subprocess.CompletedProcess[str]:
    """``helm template`` of the chart as release ``gate``."""
    capabilities = [part for version in installed for part in ("--api-versions", version)]
    return helm("template", "gate", CHART, "--namespace", NAMESPACE, *capabilities, *arguments)


@lru_cache(maxsize=64)
def rendered(example: str, *arguments: str) -> Sequence[Manifest]:
    """The manifests of an example, with further arguments to Helm."""
    done = template("--values", CHART / "ci" / f"{example}-values.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(manifests: Sequence[Manifest], kind: str) -> Mapping[str, Manifest]:
    """The manifests of a kind by their names."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, metadata and spec of each pod that the manifests make."""
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Pod":
            yield name, manifest["metadata"], manifest["spec"]
        elif manifest["kind"] in ("Deployment", "Job"):
            template = manifest["spec"]["template"]
            yield name, template["metadata"], template["spec"]
        elif manifest["kind"] == "ScaledJob":
            template = manifest["spec"]["jobTargetRef"]["template"]
            yield name, template["metadata"], template["spec"]


def container(spec: Manifest) -> Manifest:
    """The one container of a pod."""
    (only,) = spec["containers"]
    return only


def component(manifests: Sequence[Manifest], name: str) -> Manifest:
    """The pod spec of the component with that label."""
    for _, metadata, spec in pods(manifests):
        if metadata["labels"]["app.kubernetes.io/component"] == name:
            return spec
    raise AssertionError(f"expected a component {name}, found none")
