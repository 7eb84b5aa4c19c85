"""Each case in policies/cases/ holds for the policy that its folder is named for."""

from pathlib import Path

import pytest

from gate.adapters.policy_cases import differences, load_case
from gate.adapters.policy_files import SHIPPED, load_policy
from gate.domain.errors import InvalidInput

CASES = sorted((SHIPPED / "cases").glob("*/*.yaml"))


@pytest.mark.parametrize("file", CASES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_the_policy_decides_as_its_case_says(file: Path) -> None:
    assert differences(load_policy(SHIPPED / f"{file.parent.name}.yaml"), load_case(file)) == []


def test_there_is_a_case_for_each_outcome_of_the_default_policy() -> None:
    outcomes = {load_case(f).outcome.value for f in CASES if f.parent.name == "default"}

    assert outcomes == {"approved", "blocked", "needs_review", "error"}


def test_observe_decides_every_default_case_as_default_does() -> None:
    observe = load_policy(SHIPPED / "observe.yaml")

    assert [d for f in CASES for d in differences(observe, load_case(f))] == []


def test_a_case_that_does_not_hold_says_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(
        "says: x\nevidence: {defects: [non_finite_weights]}\noutcome: approved\nbecause: fine\nnot_passing: []\n"
    )

    found = differences(load_policy(SHIPPED / "default.yaml"), load_case(file))

    assert found[0] == "expected approved, found blocked: defect: non_finite_weights"
    assert len(found) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("says: x\nevidence: {}\noutcome: aproved\n", "case.yaml:3: outcome: Input should be"),
        ("says: x\nevidence:\n  measurements: {retention: 1}\noutcome: error\n", "retention: capability expected"),
        ("says: x\nevidence:\n  measurements: {nonsense: 1}\noutcome: error\n", "'nonsense' is not a valid Name"),
        ("says: x\nevidence:\n  defect: []\noutcome: error\n", "case.yaml:3: evidence.defect: Extra inputs"),
    ],
)
def test_a_malformed_case_names_file_and_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(text)

    with pytest.raises(InvalidInput) as refused:
        load_case(file)
    assert message in str(refused.value)
