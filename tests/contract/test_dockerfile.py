"""The Dockerfile: it lints, and its images are small, pinned, unprivileged and without secrets."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from dockerfile_parse import DockerfileParser

from gate.cli import app

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("api", "worker", "guard")
EXTRAS = {"api": {"service", "tracing"}, "worker": {"service", "bench", "tracing", "sigstore"}, "guard": {"guard"}}


@pytest.fixture(scope="module")
def stages() -> Mapping[str, list[dict[str, Any]]]:
    """Each stage's instructions, by its name."""
    found: dict[str, list[dict[str, Any]]] = {}
    lines: list[dict[str, Any]] = []
    for line in DockerfileParser(str(ROOT / "Dockerfile")).structure:
        if line["instruction"] == "FROM":
            lines = found.setdefault(line["value"].rpartition(" AS ")[2], [])
        lines.append(line)
    return found


def chain(stages: Mapping[str, list[dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    """The instructions of a stage after those of the stages it is made from."""
    parent = stages[name][0]["value"].rpartition(" AS ")[0]
    return [*(chain(stages, parent) if parent in stages else []), *stages[name]]


def values(lines: list[dict[str, Any]], instruction: str) -> list[str]:
    return [line["value"] for line in lines if line["instruction"] == instruction]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)

    assert (found.returncode, found.stdout) == (0, "")


def test_there_is_an_image_of_each_kind(stages: Mapping[str, list[dict[str, Any]]]) -> None:
    assert set(TARGETS) <= stages.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_numbered_user_without_rights(
    stages: Mapping[str, list[dict[str, Any]]], target: str
) -> None:
    # By number: Kubernetes' runAsNonRoot cannot tell who a name is.
    assert values(chain(stages, target), "USER")[-1] == "10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_how_it_is_and_what_it_is(stages: Mapping[str, list[dict[str, Any]]], target: str) -> None:
    lines = chain(stages, target)

    assert len(values(lines, "HEALTHCHECK")) == 1
    assert "NONE" not in values(lines, "HEALTHCHECK")
    for label in ("title", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in "".join(values(lines, "LABEL"))


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_started_by_a_command_that_the_package_installs(
    stages: Mapping[str, list[dict[str, Any]]], target: str
) -> None:
    (program,) = json.loads(values(chain(stages, target), "ENTRYPOINT")[-1])
    arguments = json.loads(values(chain(stages, target), "CMD")[-1])
    assert entry_points(group="console_scripts", name=program)
    if program == "basin-gate":
        typer.main.get_command(app).commands[arguments[0]].make_context(program, arguments[1:])
    else:
        assert (program, arguments[0]) == ("mlflow", "server")


def test_every_stage_is_made_from_the_one_pinned_base(stages: Mapping[str, list[dict[str, Any]]]) -> None:
    bases = {lines[0]["value"].rpartition(" AS ")[0] for lines in stages.values() if lines[0]["instruction"] == "FROM"}
    text = (ROOT / "Dockerfile").read_text()

    assert bases - stages.keys() == {"${PYTHON_IMAGE}"}
    assert re.search(r"^ARG PYTHON_IMAGE=\S+:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)


def test_every_installation_is_held_to_the_locked_versions(stages: Mapping[str, list[dict[str, Any]]]) -> None:
    installs = [
        line["value"] for lines in stages.values() for line in lines if "/basin-gate/bin/pip install" in line["value"]
    ]

    assert len(installs) == 4
    for install in installs:
        assert "--constraint /src/requirements.lock" in install


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_installs_the_extras_it_needs_and_no_more(
    stages: Mapping[str, list[dict[str, Any]]], target: str
) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\.whl\)\[([a-z,]+)\]", "".join(values(stages[f"{target}-files"], "RUN")))

    assert [set(names.split(",")) for names in named] == [EXTRAS[target]]
    assert EXTRAS[target] <= declared.keys()
    wanted = " ".join(requirement for extra in EXTRAS[target] for requirement in declared[extra])
    assert ("torch" in wanted) == (target == "worker")


def test_all_that_is_copied_exists_and_is_let_through_to_the_builder(
    stages: Mapping[str, list[dict[str, Any]]],
) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for lines in stages.values():
        for copy in values(lines, "COPY"):
            words = copy.split()
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in stages
                continue
            for source in words[:-1]:
                assert (ROOT / source).exists()
                assert any(fnmatch(source, pattern) for pattern in let_through), f".dockerignore keeps {source} out"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_the_bill_of_all_that_was_installed(
    stages: Mapping[str, list[dict[str, Any]]], target: str
) -> None:
    last = values(stages[f"{target}-files"], "RUN")[-1]
    command, _, file = last[last.index("basin-gate version") :].partition(" > ")

    assert command.split() == ["basin-gate", "version", "--bom"]
    assert file.split()[0] == "/opt/basin-gate/bom.cdx.json"
    assert last.index("pip install") < last.index("version --bom")
    assert any(copy.endswith("/opt/basin-gate /opt/basin-gate") for copy in values(stages[target], "COPY"))


def test_no_secret_is_written_into_an_image(stages: Mapping[str, list[dict[str, Any]]]) -> None:
    said = " ".join(v for lines in stages.values() for kind in ("ENV", "ARG", "LABEL") for v in values(lines, kind))

    assert not re.search(r"(?i)password|secret|private|_key|token|://[^/\s]+@", said)


def test_the_version_of_the_image_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()


def test_everything_the_package_ships_is_in_the_wheel_that_the_images_install(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("gate", "tasks", "policies"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w"]
    subprocess.run([*build, str(tmp_path), str(source)], check=True, timeout=120)
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(next(tmp_path.glob("basin_gate-*.whl")), unpacked, "zip")

    shipped = {str(p.relative_to(unpacked)) for p in unpacked.rglob("*") if p.is_file()}
    for package in ("gate", "tasks", "policies"):
        for file in (source / package).rglob("*"):
            if file.is_file() and file.suffix != ".md":
                assert str(file.relative_to(source)) in shipped
