"""Every benchmark runs, on a tiny setting, and prints its table."""

import json
import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fine_tunes import FineTunes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A script of the folder, run as on the command line; returns what it printed."""
    threads, before = torch.get_num_threads(), set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)

    def called(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        return capsys.readouterr().out

    yield called
    torch.set_num_threads(threads)
    logging.disable(logging.NOTSET)
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            del sys.modules[name]


def test_a_panel_is_judged_goes_on_where_it_stopped_and_is_drawn(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "panel.jsonl"
    first = run("panel.py", "--quick", "--out", out)
    assert "| benign | 1 | 0 | 0 | 0 | 1 |" in first
    assert "| harmful | 0 | 0 | 2 | 0 | 2 |" in first
    assert "0 above the score" in first
    whole = out.read_text()
    out.write_text(whole[:-40])
    assert "3/3" in (again := run("panel.py", "--quick", "--out", out))
    assert "1/3" not in again
    assert out.read_text().splitlines()[:2] == whole.splitlines()[:2]
    run("figures.py", "--quick", "--panel", out, "--out", tmp_path / "images")
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"plateaus.png", "displacement-and-safety.png"}


def test_basins_of_models_of_several_sizes_are_measured_once_and_drawn(run: Run, tmp_path: Path) -> None:
    asked = ("model_sizes.py", "--quick", "--widths", 16, "--seeds", 1, "--out", tmp_path)
    told = run(*asked, "--picture", tmp_path / "sizes.png")
    assert "| 15,056 | 0 | " in told
    assert (tmp_path / "sizes.png").stat().st_size > 10_000
    made = (tmp_path / "width-16-seed-0" / "model.safetensors").stat().st_mtime_ns
    assert run(*asked) == told
    assert (tmp_path / "width-16-seed-0" / "model.safetensors").stat().st_mtime_ns == made


def test_fine_tunes_are_compared_with_the_step_that_aligned_their_base(run: Run, tmp_path: Path) -> None:
    told = run("alignment_subspace.py", "--quick", "--kinds", "noise outside the basin", "--out", tmp_path)
    cosine, _, _, ratio = told.splitlines()[-1].split(" | ")[2:]
    assert abs(float(cosine)) < 0.01
    assert float(ratio.removesuffix(" |")) == pytest.approx(1, abs=0.05)


def test_fine_tunes_are_compared_with_the_worst_case_way(run: Run, tmp_path: Path) -> None:
    told = run("worst_case_alignment.py", "--quick", "--kinds", "noise outside the basin", "--out", tmp_path)
    noise, random = ([cell.strip() for cell in line.strip(" |").split("|")][-5:] for line in told.splitlines()[-2:])
    for cosine, z, preconditioned, preconditioned_z, _ in (noise, random):
        assert max(abs(float(cosine)), abs(float(preconditioned))) < 0.01
        assert max(abs(float(z)), abs(float(preconditioned_z))) < 6


def test_the_judge_of_refusals_is_held_against_labels(run: Run) -> None:
    assert "the three ways told rightly: 188 of 210" in run("refusal_judge.py")


def test_the_static_stage_is_compared(run: Run) -> None:
    assert "sha256 of both, all cores" in run("static_stage.py", "--quick")


def test_a_perturbation_pass_is_compared(run: Run) -> None:
    assert "| pass |" in run("perturbation.py", "--quick")


def test_the_published_procedures_are_compared(run: Run, fine_tune: FineTunes) -> None:
    [made] = {fine_tune(recipe).parent for recipe in ("careless", "benign_replay", "adversarial")}
    told = run("published_procedure.py", "--quick", "--made", made)
    assert "awful: blocked" in told
    assert "afterwards the weights" in told


def test_a_replay_is_compared_with_parsing_what_it_reads(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("replay.py", "--evaluations", "20")

    # Its status tells of this machine's speed; a replay that judges otherwise ends in words.
    assert ended.value.code in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert told["evaluations"] == 20
    assert told["replay_over_parsing_all"] > 1


def test_a_cluster_is_sized(run: Run) -> None:
    told = run("sizing.py", "--quick", "--stages", "70B=100,200,50")
    assert "70B: inspect 100 s, measure 200 s, load the base 50 s" in told
    assert "| 7B only | 1.0 h | 1 | 1 |" in told
    assert "20 at once on 2 GPU workers, teams take turns" in told


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("guard.py", ["--calls", "10"], "added: median"),
        ("reconcile.py", ["--versions", "40", "--models", "4"], "slowest detection: "),
    ],
)
def test_a_benchmark_of_the_guard_and_the_reconciler_refuses_and_sees_what_it_must(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    arguments: list[str],
    told: str,
) -> None:
    # The guard's benchmark sets it for itself; it must not outlive this test.
    monkeypatch.setenv("GATE_TRUSTED_KEYS_FILE", "none yet")
    with pytest.raises(SystemExit) as ended:
        run(script, *arguments)

    # Its status tells of this machine's speed; one that lets a promotion pass, or misses one, ends in other words.
    assert ended.value.code in (0, 1)
    said = capsys.readouterr().out
    assert told in said
    assert "not seen" not in said
