"""How the embedded stack shares a machine between its processes."""

import os
from pathlib import Path

import pytest

from gate.embedded import EmbeddedStack


def threads(state: Path) -> str:
    return EmbeddedStack(state, mlflow_port=1, api_port=2).environment["GATE_THREADS"]


@pytest.mark.parametrize(("cores", "expected"), [(8, "4"), (2, "1"), (1, "1"), (None, "1")])
def test_both_workers_together_have_no_more_threads_than_the_machine_has_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int | None, expected: str
) -> None:
    monkeypatch.delenv("GATE_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)

    assert threads(tmp_path) == expected


def test_the_operators_own_number_of_threads_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_THREADS", "3")

    assert threads(tmp_path) == "3"
