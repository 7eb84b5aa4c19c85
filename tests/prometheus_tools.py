"""Prometheus' own tools, where `make test` could get them."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[1] / ".venv" / "prometheus" / "usr" / "bin"


def tool(name: str) -> str:
    """The path of promtool, amtool or prometheus; the test skips where it could not be had."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        pytest.skip(
            f"{name} is not here; get it with: tests/tools/unpack_debian.sh .venv/prometheus prometheus "
            "prometheus-alertmanager"
        )
    return found


def output_of(name: str, *arguments: str, given: str | None = None) -> str:
    """What a tool prints when all is well; fails with that where it is not."""
    done = subprocess.run([tool(name), *arguments], input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
