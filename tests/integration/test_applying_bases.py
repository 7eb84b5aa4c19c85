"""Bases onboarded from a file, as the chart's Job does it: once, and again only when they are described otherwise."""

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gate.bootstrap import build_ledger
from gate.domain.errors import InvalidInput
from gate.settings import Settings, settings
from tasks.cli import base_app

STAGED = Path(__file__).parents[2] / "tasks" / "zoo" / "staged"
SUITES = Path(__file__).parents[2] / "tasks" / "zoo" / "suites"


@pytest.fixture
def applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Applies a list of bases; what was said."""
    monkeypatch.setenv("GATE_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()

    def apply(*bases: dict[str, object]) -> str:
        (tmp_path / "bases.yaml").write_text(yaml.safe_dump({"bases": list(bases)}))
        ended = CliRunner().invoke(base_app, ["apply", "bases.yaml"], catch_exceptions=False)
        assert ended.exit_code == 0
        return ended.stdout

    yield apply
    settings.cache_clear()


def test_a_base_is_onboarded_once_and_again_when_it_is_described_otherwise(applied, tmp_path: Path) -> None:
    base = {"name": "staged base", "source": str(STAGED), "suite": "staged"}

    assert applied(base).startswith("onboarded staged base")
    assert applied(base) == "unchanged staged base\n"
    assert applied(base | {"references": ["example/staged"]}).startswith("onboarded staged base")
    (kept,) = build_ledger(Settings(state_dir=tmp_path)).bases()
    assert kept.references == ("example/staged",)


def test_a_suite_mounted_from_a_configmap_stays_known_when_kubernetes_replaces_its_files(
    applied, tmp_path: Path
) -> None:
    # The kubelet writes a new dated folder and turns the link ..data; the files are links through it.
    mounted = tmp_path / "suites" / "mounted"
    mounted.mkdir(parents=True)
    for dated in ("..2026_01_01", "..2026_02_02"):
        (mounted / dated).mkdir()
        for file in (SUITES / "staged").iterdir():
            (mounted / dated / file.name).write_bytes(file.read_bytes())
        (mounted / "..data").unlink(missing_ok=True)
        (mounted / "..data").symlink_to(dated)
        for file in (SUITES / "staged").iterdir():
            if not (mounted / file.name).is_symlink():
                (mounted / file.name).symlink_to(Path("..data") / file.name)
        said = applied({"source": str(STAGED), "suite": str(mounted)})
        assert said.startswith("onboarded" if dated == "..2026_01_01" else "unchanged")


def test_a_base_is_onboarded_again_when_its_suite_was_changed(applied, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    shutil.copytree(SUITES / "staged", suite)
    base = {"source": str(STAGED), "suite": str(suite)}
    applied(base)
    (before,) = build_ledger(Settings(state_dir=tmp_path)).bases()

    (suite / "suite.yaml").write_text((suite / "suite.yaml").read_text() + "# changed\n")

    assert applied(base).startswith("onboarded")
    (now,) = build_ledger(Settings(state_dir=tmp_path)).bases()
    assert (now.digest, now.suite) == (before.digest, before.suite)
    assert now.suite_digest not in (None, before.suite_digest)


def test_a_file_of_another_shape_is_refused_before_anything_is_onboarded(applied, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected a list `bases`"):
        applied({"source": str(STAGED), "suit": "staged"})
