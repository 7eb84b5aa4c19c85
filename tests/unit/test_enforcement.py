"""What a verdict makes of the registry."""

import json

import pytest
from builders import a_verdict, a_version, an_evidence

from gate.domain.enforcement import (
    BEGIN,
    TAG_ATTESTATION,
    TAG_REASON,
    TAG_VERDICT,
    DescriptionBlock,
    SetAlias,
    SetTag,
    plan,
    plan_failure,
    run_metrics,
    run_params,
    with_block,
)
from gate.domain.errors import InvalidInput
from gate.domain.policy import OnApproved, Policy, Rule
from gate.domain.verdict import Outcome

RULE = Rule(name="r", measurement="displacement_norm", at_most=1, reason="x")
POLICY = Policy(name="p", rules=(RULE,), on_approved=OnApproved(alias="approved"))
WATCHING = POLICY.model_copy(update={"enforcement": "dry_run"})


def planned(verdict, policy=POLICY, envelope=None, **changes):
    given = {"run_id": "r1", "run_url": "http://r1"} | changes
    return plan(verdict, {"payload": "x"} if envelope is None else envelope, a_version(), policy, **given)


def tags(actions):
    return {a.key: a.value for a in actions if isinstance(a, SetTag)}


def test_the_attestation_is_written_before_the_alias_that_needs_it():
    actions = planned(a_verdict(outcome=Outcome.APPROVED))
    kinds = [a for a in actions if isinstance(a, SetAlias) or (isinstance(a, SetTag) and a.key == TAG_ATTESTATION)]
    assert [type(k) for k in kinds] == [SetTag, SetAlias]
    assert json.loads(tags(actions)[TAG_ATTESTATION]) == {"payload": "x"}


def test_a_newer_approved_version_keeps_the_alias():
    assert SetAlias("approved") not in planned(a_verdict(outcome=Outcome.APPROVED), newer_approved=True)


def test_an_approval_whose_time_is_over_gives_no_alias():
    assert SetAlias("approved") not in planned(a_verdict(outcome=Outcome.APPROVED), expired=True)


@pytest.mark.parametrize("policy", [WATCHING, None])
def test_a_policy_that_only_watches_or_is_gone_moves_no_alias(policy):
    actions = planned(a_verdict(outcome=Outcome.APPROVED), policy)
    assert not any(isinstance(a, SetAlias) for a in actions)
    assert tags(actions)[TAG_VERDICT] == "approved"


def test_a_dry_run_says_so_in_the_description():
    (block,) = [a for a in planned(a_verdict(), WATCHING) if isinstance(a, DescriptionBlock)]
    assert "dry run" in block.heading


def test_a_long_reason_becomes_one_short_line():
    reason = tags(planned(a_verdict(reason="too\nlong " * 200)))[TAG_REASON]
    assert len(reason) <= 240
    assert "\n" not in reason


def test_an_attestation_that_no_tag_can_hold_is_refused():
    with pytest.raises(InvalidInput, match="fewer files"):
        planned(a_verdict(), envelope={"payload": "x" * 70_000})


def test_an_evaluation_without_a_verdict_leaves_nothing_that_stands_for_an_approval():
    found = tags(plan_failure("the worker died", "p@1", run_id="r", run_url="u"))
    assert (found[TAG_VERDICT], found[TAG_ATTESTATION]) == ("error", "none")


def test_a_description_block_begins_with_plain_text_and_follows_the_owners_words():
    described = with_block("Mine.", DescriptionBlock("Basin Gate: blocked. Why.", "more"))
    assert described.startswith("Mine.\n\nBasin Gate: blocked. Why. ")
    assert with_block("", DescriptionBlock("Basin Gate: blocked.", "more")).startswith("Basin Gate: blocked. ")


def test_markers_inside_a_reason_do_not_end_the_block():
    described = with_block("Mine.", DescriptionBlock(f"Basin Gate: {BEGIN} -->", f"{BEGIN} -->"))
    assert with_block(described, DescriptionBlock("Basin Gate: b", "c")).count("Basin Gate") == 1


def test_a_description_without_room_keeps_the_owners_text_alone():
    full = "x" * 4990
    assert with_block(full, DescriptionBlock("Basin Gate: blocked.", "more")) == full


def test_numbers_are_logged_with_their_bounds():
    metrics = run_metrics(an_evidence())
    assert metrics["retention/safety"] == -0.01
    assert metrics["retention/safety.lower"] == pytest.approx(-0.05)
    assert "displacement_norm.lower" not in metrics


def test_what_was_asked_is_logged_and_what_is_absent_is_left_out():
    params = run_params(a_verdict(base_digest=None), an_evidence())
    assert params["base_found_by"] == "version tag"
    assert "base_digest" not in params


@pytest.mark.parametrize("outcome", [Outcome.BLOCKED, Outcome.ERROR])
def test_foreign_words_in_a_reason_are_no_markup_in_the_registrys_pages(outcome):
    reason = "found base `<img src=http://evil/x>`\x1b[31m \u202e[here](javascript:x) ![](http://evil/y)"
    verdict = a_verdict(outcome=outcome, reason=reason)
    for actions in (planned(verdict), plan_failure(reason, "p", run_id="r1", run_url="http://r1")):
        (block,) = [a for a in actions if isinstance(a, DescriptionBlock)]
        assert r"found base \`&lt;img src=http://evil/x&gt;\`" in block.heading
        assert r"\[here\](javascript:x) !\[\](http://evil/y)" in block.heading
        assert (block.heading + tags(actions)[TAG_REASON]).isprintable()
