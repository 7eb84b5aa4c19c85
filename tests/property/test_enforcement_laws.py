"""Laws of what is written to the registry: the owner's text survives, repeating changes nothing."""

from builders import a_verdict, a_version
from hypothesis import given
from hypothesis import strategies as st

from gate.domain.enforcement import (
    BEGIN,
    DESCRIPTION_CHARACTERS,
    END,
    DescriptionBlock,
    RemoveAlias,
    SetAlias,
    plan,
    with_block,
    without_block,
)
from gate.domain.policy import OnApproved, Policy, Rule
from gate.domain.verdict import Outcome

OWNERS = st.text(max_size=DESCRIPTION_CHARACTERS)
BLOCKS = st.builds(
    DescriptionBlock, heading=st.text(max_size=300).map(lambda t: f"Basin Gate: {t}"), text=st.text(max_size=300)
)
MARKS = st.lists(st.sampled_from([BEGIN, END, "Basin Gate: ", "\n", "\n\n", "owner", " "]), max_size=12).map("".join)


@given(OWNERS, BLOCKS)
def test_the_owners_text_is_kept_to_the_character(owners, block):
    assert without_block(with_block(owners, block)) == owners


@given(OWNERS, BLOCKS, BLOCKS)
def test_a_later_block_replaces_an_earlier_one(owners, first, second):
    assert with_block(with_block(owners, first), second) == with_block(owners, second)


@given(MARKS, BLOCKS, BLOCKS)
def test_broken_markers_in_the_owners_text_never_make_more_of_it_vanish(owners, first, second):
    once = with_block(owners, first)
    assert without_block(once) == without_block(owners)
    assert with_block(once, second) == with_block(owners, second)


@given(OWNERS, BLOCKS)
def test_a_description_never_grows_past_what_the_registry_takes(owners, block):
    assert len(with_block(owners, block)) <= max(DESCRIPTION_CHARACTERS, len(owners))


@given(st.sampled_from([o for o in Outcome if o is not Outcome.APPROVED]), st.booleans(), st.booleans())
def test_only_an_approval_sets_an_alias_and_only_the_gates_own_is_removed(outcome, held, newer):
    version = a_version(aliases=("approved", "theirs") if held else ("theirs",))
    actions = planned(outcome, version, newer)
    assert not any(isinstance(a, SetAlias) for a in actions)
    assert [a for a in actions if isinstance(a, RemoveAlias)] == ([RemoveAlias("approved")] if held else [])


def planned(outcome, version, newer=False, policy=None):
    rule = Rule(name="r", measurement="displacement_norm", at_most=1, reason="x")
    made = policy or Policy(name="p", rules=(rule,), on_approved=OnApproved(alias="approved"))
    verdict = a_verdict(outcome=outcome)
    return plan(verdict, {"payload": ""}, version, made, run_id="r", run_url="http://r", newer_approved=newer)
