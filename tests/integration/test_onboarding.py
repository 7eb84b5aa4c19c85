"""Onboarding a base from the command line's folder, which is not the workers'."""

import shutil
from pathlib import Path

import pytest
from databases import sqlite_file
from fine_tunes import FineTunes

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.checkpoint import Ancestor
from gate.domain.errors import InvalidInput
from gate.settings import Settings
from tasks.bases import WantedBase, ancestor_files, take_in
from tasks.static_stage import inspect_folder
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


def test_the_model_that_a_base_was_aligned_from_is_kept_with_it_and_fetched_again(
    tmp_path: Path, ledger: SqlLedger, fine_tune: FineTunes
) -> None:
    settings, base = Settings(state_dir=tmp_path / "state"), recipes.base_folder("staged", tmp_path)
    ancestor = str(fine_tune("benign_replay"))

    taken = take_in(settings, ledger, str(base), suite="staged", name="b", ancestor=ancestor)

    [kept] = ledger.bases()
    assert (kept, kept.ancestor) == (
        taken,
        Ancestor(source=ancestor, checkpoint=inspect_folder(Path(ancestor)).checkpoint),
    )
    shutil.rmtree(ancestor_files(settings, kept.ancestor))
    assert inspect_folder(ancestor_files(settings, kept.ancestor)).checkpoint == kept.ancestor.checkpoint
    assert WantedBase(source=str(base), suite="staged", name="b", ancestor=ancestor).is_met_by(kept)
    assert not WantedBase(source=str(base), suite="staged", name="b").is_met_by(kept)


def test_a_base_without_a_known_ancestor_says_nothing_of_one(tmp_path: Path, ledger: SqlLedger) -> None:
    base = recipes.base_folder("staged", tmp_path)

    kept = take_in(Settings(state_dir=tmp_path / "state"), ledger, str(base), suite="staged", name="b")

    assert "ancestor" not in kept.model_dump_json()


def test_a_base_is_not_its_own_ancestor(tmp_path: Path, ledger: SqlLedger) -> None:
    base = str(recipes.base_folder("staged", tmp_path))

    with pytest.raises(InvalidInput, match="found the base itself"):
        take_in(Settings(state_dir=tmp_path / "state"), ledger, base, suite="staged", name="b", ancestor=base)

    assert not ledger.bases()


def test_a_base_that_is_nowhere_is_refused_with_what_was_expected(tmp_path: Path, ledger: SqlLedger) -> None:
    with pytest.raises(InvalidInput, match=r"expected a base as models:/NAME/VERSION or a folder, found 'nowhere'"):
        take_in(Settings(state_dir=tmp_path / "state"), ledger, "nowhere", suite="staged", name="b")
