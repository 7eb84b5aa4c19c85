"""Which spellings of a protected name are that name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gate.adapters.policy_files import load_policies
from gate.domain.layers import loosened
from gate.domain.policy import Protected
from gate.domain.promotion import (
    folded,
    is_reserved,
    mode_of,
    protects_alias,
    protects_model,
    protects_stage,
    same_name,
)

DEFAULT = load_policies().policies[0]


@pytest.mark.parametrize(
    "alias",
    [
        *("champion", "CHAMPION", "Chämpion", "champio\u0303n", "ｃｈａｍｐｉｏｎ", "cham\u200bpion", "champion\n"),
        *("champ\u0640ion", "ﹳchampion", "champ\u1cf2ion", "cham\u02bcpion"),
        *("prøduction", "proꝺuction", "producŧion", "PRODUCTİON", "approveđ", "\u00adapproved"),
    ],
)
def test_a_spelling_that_a_database_may_take_for_a_protected_alias_is_protected(alias: str) -> None:
    assert protects_alias(DEFAULT, alias)


@pytest.mark.parametrize("alias", ["challenger", "champion2", "champ", "prod", "非常口", "not-approved", ""])
def test_other_aliases_are_free(alias: str) -> None:
    assert not protects_alias(DEFAULT, alias)


def test_a_protected_name_of_another_script_is_itself_alone() -> None:
    assert same_name("生产", "生产")
    assert not same_name("测试", "生产")
    assert same_name("aliæs", "aliaes")
    assert same_name("kärcher", "kaercher")
    assert same_name("v⓫", "v11")


def test_stages_and_models_are_compared_in_the_same_way() -> None:
    models = DEFAULT.protected.model_copy(update={"registered_models": ("prod.llm",)})
    policy = DEFAULT.model_copy(update={"protected": models})

    assert protects_stage(policy, "PRODUCTION")
    assert not protects_stage(policy, "Staging")
    assert protects_model(policy, "Prod.LLM")
    assert not protects_model(policy, "prodxllm")


def test_a_mode_holds_for_its_name_in_any_spelling_and_the_strictest_of_several_counts() -> None:
    names = {"aliases": ("champion", "chämpion", "beta"), "modes": {"champion": "dry_run", "beta": "warn"}}
    policy = DEFAULT.model_copy(update={"protected": Protected.model_validate(names)})

    assert mode_of(policy, "alias", "BETA") == "warn"
    assert mode_of(policy, "alias", "Champion") == "enforce"
    assert mode_of(policy, "alias", "gamma") is None
    assert mode_of(policy.model_copy(update={"enforcement": "dry_run"}), "alias", "beta") == "dry_run"


def test_a_mode_of_a_name_that_is_not_protected_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected names that are protected beside it"):
        Protected.model_validate({"aliases": ["champion"], "modes": {"champoin": "warn"}})


def test_a_policy_that_softens_a_name_of_the_one_above_loosens_it() -> None:
    softer = DEFAULT.protected.model_copy(update={"modes": {DEFAULT.protected.aliases[0]: "warn"}})
    lower = DEFAULT.model_copy(update={"protected": softer})

    assert any("protected.modes" in each for each in loosened(DEFAULT, lower))
    assert not any("protected.modes" in each for each in loosened(lower, lower))


def test_the_gates_results_are_reserved_and_the_owners_tags_are_not() -> None:
    assert all(is_reserved(tag) for tag in ("gate.verdict", "gate.vsa", "GATE.verdict", "gate.base2", "ga\u0640te.vsa"))
    assert not any(is_reserved(tag) for tag in ("gate.base", "team", "mygate.verdict"))


@given(st.text(max_size=20))
def test_folding_twice_folds_no_further(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@given(st.text("abcxyzäéøλ-_.0123", max_size=20))
def test_case_never_makes_another_name(text: str) -> None:
    assert same_name(text.upper(), text)
    assert same_name(text, text.swapcase())
