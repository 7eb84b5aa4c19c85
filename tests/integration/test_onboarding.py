"""Onboarding a base from the command line's folder, which is not the workers'."""

import shutil
from pathlib import Path

import pytest
from databases import sqlite_file

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import InvalidInput
from gate.settings import Settings
from tasks.bases import take_in
from tasks.suites import SHIPPED
from tasks.zoo import recipes


@pytest.fixture
def ledger(tmp_path: Path) -> SqlLedger:
    url = sqlite_file(tmp_path)
    migrate(url)
    return SqlLedger(url)


def test_relative_places_of_base_and_suite_are_kept_as_whole_paths(
    tmp_path: Path, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(recipes.base_folder("staged", tmp_path), tmp_path / "base")
    shutil.copytree(SHIPPED / "staged", tmp_path / "suite")
    monkeypatch.chdir(tmp_path)

    take_in(Settings(state_dir=tmp_path / "state"), ledger, "base", suite="suite", name="b")

    kept = ledger.bases()[0]
    assert (kept.source, kept.suite) == (str(tmp_path / "base"), str(tmp_path / "suite"))


def test_a_shipped_suite_is_kept_by_its_name(tmp_path: Path, ledger: SqlLedger) -> None:
    base = recipes.base_folder("staged", tmp_path)

    kept = take_in(Settings(state_dir=tmp_path / "state"), ledger, str(base), suite="staged", name="b")

    assert kept.suite == "staged"


def test_a_base_that_is_nowhere_is_refused_with_what_was_expected(tmp_path: Path, ledger: SqlLedger) -> None:
    with pytest.raises(InvalidInput, match=r"expected a base as models:/NAME/VERSION or a folder, found 'nowhere'"):
        take_in(Settings(state_dir=tmp_path / "state"), ledger, "nowhere", suite="staged", name="b")
