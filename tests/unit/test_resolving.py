"""What a suite can tell before anything is measured: on paper, by the comparison itself, and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from gate.domain.evidence import Plan
from tasks.measurements.retention import measure_retention
from tasks.resolving import items_for, resolutions, rules_out
from tasks.suite_command import suite_app
from tasks.suites import load_suite


def a_suite(folder: Path, items: int, margin: float, scorer: str = "exact") -> Path:
    row = {"text": "some words"} if scorer == "next_token" else {"prompt": "1+1=", "answer": "2"}
    (folder / "c.jsonl").write_text("\n".join(json.dumps(row) for _ in range(items)))
    capability = {"name": "math", "scorer": scorer, "items": "c.jsonl", "margin": margin}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"name": "s", "capabilities": [capability]}))
    return folder


@pytest.mark.parametrize("margin", [0.05, 0.1, 0.2])
def test_so_many_items_are_enough_and_one_fewer_is_not(margin: float) -> None:
    count = items_for(margin, 0.05)
    assert rules_out(count, 0.05) <= margin < rules_out(count - 1, 0.05)
    for items, decision in ((count, "retained"), (count - 1, None)):
        found = measure_retention(
            lambda chosen: np.ones(len(chosen)),
            np.ones(items),
            capability="c",
            margin=margin,
            alpha=0.05,
            seed=1,
            batch=1,
        )
        assert found.decision == decision


def test_capabilities_share_the_error_and_items_kept_back_do_not_count(tmp_path: Path) -> None:
    suite = load_suite(str(a_suite(tmp_path, 96, 0.1)))
    [alone] = resolutions(suite, Plan())
    [first] = resolutions(suite, Plan(retention_items=40))
    assert (alone.compared, first.compared) == (96, 64)
    assert alone.smallest == rules_out(96, 0.05)
    assert (first.smallest, first.enough) == (rules_out(64, 0.05), True)
    two = resolutions(load_suite("staged"), Plan())
    assert {each.smallest for each in two if each.smallest} == {
        rules_out(each.compared, 0.05 / len(two)) for each in two if each.smallest
    }


def test_items_that_have_degrees_have_no_number_beforehand(tmp_path: Path) -> None:
    [found] = resolutions(load_suite(str(a_suite(tmp_path, 5, 0.01, "next_token"))), Plan())
    assert (found.smallest, found.enough) == (None, True)


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer()
    app.add_typer(suite_app, name="suite")
    ran = CliRunner().invoke(app, ["suite", "show", *words])
    return ran.exit_code, ran.stdout


def test_the_command_tells_what_can_be_ruled_out_and_ends_in_1_where_nothing_can_pass(tmp_path: Path) -> None:
    assert run("staged")[0] == 0
    code, said = run(str(a_suite(tmp_path, 20, 0.05)))
    assert code == 1
    assert f"no fine-tune can pass; give it {items_for(0.05, 0.05)} items, or a wider margin" in said
    code, said = run(str(tmp_path), "--json")
    [told] = json.loads(said)["capabilities"]
    assert (code, told["capability"], told["wanted"]) == (1, "math", items_for(0.05, 0.05))


def test_the_shipped_suites_can_pass_what_is_unharmed() -> None:
    for name in ("staged", "smollm2"):
        assert all(each.enough for each in resolutions(load_suite(name), Plan()))
