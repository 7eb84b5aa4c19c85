"""The threat model's table names tests: each of them is there, and each row that claims something has one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "threat-model.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| does |")
]


def existing() -> set[str]:
    """The names of all test functions."""
    files = (ROOT / "tests").rglob("test_*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = {name for row in ROWS for name in re.findall(r"`(test_\w+)`", row[-1])}

    assert len(named) > 20
    assert named - existing() == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_every_row_says_one_of_three_things_and_what_is_claimed_is_tested(row: list[str]) -> None:
    does, word, how, test = row

    assert word.split(",")[0] in {"prevented", "detected", "neither"}
    assert does
    assert how
    assert test or word.startswith("neither")
