"""Limits learned from real fine-tunes of the staged base by the command, as its page says."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from fine_tunes import FineTunes
from safetensors.torch import load_file, save_file
from small_checks import STAGED, part_of_suite, small_check_policy
from typer.testing import CliRunner

from gate.adapters.policy_files import load_policy
from gate.cli import app
from gate.domain.errors import InvalidInput
from gate.domain.limits import needed
from tasks.cli import register

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "calibrate-limits.md"
GOOD, BAD = 22, 2
register(app)


def with_noise(folder: Path, sigma: float, seed: int) -> None:
    """The base with a little noise: as good as it was, and a candidate of its own."""
    shutil.copytree(STAGED, folder)
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: tensor + sigma * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})


def halfway(tuned: Path, folder: Path) -> None:
    """A fine-tune merged with its base: as harmful, and half as far."""
    shutil.copytree(tuned, folder)
    start = load_file(STAGED / "model.safetensors")
    moved = {name: torch.lerp(start[name], end, 0.5) for name, end in load_file(tuned / "model.safetensors").items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def place(fine_tune: FineTunes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the page has it, with fine-tunes whose worth is known."""
    root = tmp_path_factory.mktemp("calibration")
    shutil.copytree(STAGED, root / "models" / "base")
    part_of_suite(root / "support-suite")
    (root / "policies").mkdir()
    (root / "evidence").mkdir()
    small_check_policy(root / "policies" / "support.yaml", name="support")
    for number in range(GOOD):
        with_noise(root / "models" / "good" / str(number), 0.0005 + 0.0001 * number, number)
    with_noise(root / "out" / "fine-tune", 0.0004, 99)
    shutil.copytree(fine_tune("adversarial"), root / "models" / "bad" / "whole")
    halfway(fine_tune("adversarial"), root / "models" / "bad" / "merged")
    return root


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def calibrate(*words: str) -> Result:
    given = ["--base", "models/base", "--suite", "support-suite", "--policy", "policies/support.yaml"]
    return run("calibrate", *given, "--cache", ".basin-cache", "--bad", "models/bad", *words)


def test_the_how_to_on_calibrating_runs_as_it_is_written(place: Path) -> None:
    text = HOWTO.read_text(encoding="utf-8")
    commands = re.findall(r"^\$ basin-gate (.+)\n((?:(?!\$|```).*\n)*)", text, re.MULTILINE)

    for line, printed in commands:
        ran = run(*line.split())
        assert ran.exit_code == 0, ran.output
        for shown in printed.splitlines():
            assert shown.rstrip("…") in ran.output
    assert [line.split()[0] for line, _ in commands] == ["assess", "calibrate", "policy", "policy", "selfcheck"]

    before, after = (load_policy(place / "policies" / f"{name}.yaml") for name in ("support", "calibrated"))
    learned = {r.name: r.calibration for r in after.rules if r.calibration is not None}
    assert set(learned) == {"not-toward-the-worst-case", "still-a-fine-tune"}
    (calibration,) = set(learned.values())
    # One good one was stored as evidence, and of the folder the rest; the bad ones point where safety is lost.
    assert (calibration.good, calibration.bad, calibration.bad_held) == (GOOD + 1, BAD, BAD)
    assert [r.name for r in after.rules] == [r.name for r in before.rules]
    # Noise of up to 0.0026 on weights of 0.087 is 3 % of them, and the shipped limit is 25 %.
    by_name = {r.name: r for r in after.rules}
    assert 0.02 < by_name["still-a-fine-tune"].at_most < 0.04
    assert (place / "policies" / "calibrated.yaml").read_text().startswith("# Limits of not-toward-the-worst-case")

    judged = run("assess", "--base", "models/base", "--candidate", "models/bad/whole", "--suite", "support-suite",
                 "--policy", "policies/calibrated.yaml", "--cache", ".basin-cache")  # fmt: skip
    assert judged.exit_code == 1


def test_the_table_of_the_how_to_is_what_the_command_asks_for() -> None:
    rows = re.findall(r"^\| (\d) \| (\d+) \| (\d+) \| (\d+) \|$", HOWTO.read_text(), re.MULTILINE)

    assert len(rows) == 4
    for row in rows:
        rules, *counts = map(int, row)
        assert counts == [needed(rate, 0.05, rules) for rate in (0.05, 0.1, 0.2)]


def test_too_few_good_ones_end_in_1_before_anything_is_measured(tmp_path: Path) -> None:
    ran = calibrate("--good", "models/good", "--out", str(tmp_path / "p.yaml"))

    assert ran.exit_code == 1
    assert "refused: expected at least 110 good fine-tunes for 2 rules and a rate of 0.05, found 22" in ran.output
    assert not (tmp_path / "p.yaml").exists()


def test_one_fine_tune_copied_often_is_one(tmp_path: Path) -> None:
    for number in range(14):
        shutil.copytree("models/good/0", tmp_path / "copies" / str(number))
    file = tmp_path / "found.json"

    words = ("--false-block", "0.2", "--alpha", "0.1", "--rule", "still-a-fine-tune", "--json", str(file))
    ran = calibrate("--good", str(tmp_path / "copies"), *words)

    assert ran.exit_code == 1
    found: dict[str, Any] = json.loads(file.read_text())
    assert "expected at least 14 versions for a rate of 0.2, found 1" in found["refused"]
    assert found["suggestions"][0]["limit"] is None


def test_folders_without_a_base_and_files_that_are_no_evidence_are_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text("{}")
    loose = ("--false-block", "0.9", "--alpha", "0.9", "--rule", "still-a-fine-tune")

    measured = run("calibrate", "--good", "models/good", "--bad", "models/bad", *loose)
    wrong = run("calibrate", "--good", str(tmp_path / "wrong.json"), "--bad", "models/bad", *loose)
    absent = run("calibrate", "--good", "nowhere", "--bad", "models/bad", *loose)

    for ran, message in ((measured, "expected --base"), (wrong, "wrong.json: expected what"), (absent, "nowhere")):
        assert isinstance(ran.exception, InvalidInput)
        assert message in str(ran.exception)
