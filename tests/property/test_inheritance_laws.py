"""What a lower layer inherits: merged into it, a policy approves nothing that a layer above alone would not."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from judging_cases import bodies, falsehoods, outcome, policies
from pydantic import ValidationError

from gate.domain.evidence import Evidence, StageCost
from gate.domain.layers import loosened, merged
from gate.domain.policy import Budget, Policy
from gate.domain.verdict import Outcome

numbers = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def documents(draw: st.DrawFn) -> tuple[Policy, dict[str, Any]]:
    """An organisation's policy, and a team's document: rules of its own, some of the names above, some keys changed."""
    above = draw(policies()).model_copy(update={"layer": "organisation", "name": "acme"})
    if draw(st.booleans()):
        above = above.model_copy(update={"budget": Budget(gpu_seconds=60)})
    rules = []
    for rule in draw(policies()).rules:
        said = rule.model_dump(mode="json", exclude_none=True)
        said["name"] = draw(st.sampled_from([said["name"], f"own-{said['name']}"]))
        said |= draw(st.sampled_from([{}, {"when": "true"}, {"failure": "open", "failure_reason": "new"}]))
        rules.append(said)
    for rule in above.rules:
        if draw(st.booleans()) and rule.name not in {said["name"] for said in rules}:
            said = rule.model_dump(mode="json", exclude_none=True)
            key = "at_most" if "at_most" in said else "at_least"
            moved = said[key] if said[key] == "margin" else said[key] + draw(st.sampled_from([-0.25, 0.0, 0.25]))
            rules.append({**said, key: moved})
    team: dict[str, Any] = {"name": "team", "layer": "team", "parent": "acme", "rules": rules}
    extra = [{}, {"budget": {"gpu_seconds": draw(st.sampled_from([30, 90]))}}, {"defects": {"dtype_changed": "block"}}]
    return above, team | draw(st.sampled_from(extra))


def stood(above: Policy, document: dict[str, Any]) -> Policy | None:
    """The team's policy as it is loaded; ``None`` where it is refused."""
    try:
        policy = Policy.model_validate(merged(above, document))
    except ValidationError:
        return None
    return None if loosened(above, policy) else policy


@given(documents(), bodies(), falsehoods, st.sampled_from([10.0, 45.0, 75.0]))
def test_a_merged_policy_never_approves_what_a_layer_above_alone_would_not(
    pair: tuple[Policy, dict[str, Any]], evidence: Evidence, false: set[str], seconds: float
) -> None:
    above, document = pair
    policy = stood(above, document)
    costly = evidence.model_copy(update={"costs": (StageCost(stage="s", seconds=seconds),)})
    # Idle as far as can be: every condition of the lower layer's own is false, of those above whichever were drawn.
    if policy is not None and outcome(above, costly, false) is not Outcome.APPROVED:
        assert outcome(policy, costly, false | {"true"}) is not Outcome.APPROVED


@given(documents())
def test_every_rule_above_is_in_the_merged_policy_at_least_as_strict(pair: tuple[Policy, dict[str, Any]]) -> None:
    above, document = pair
    policy = stood(above, document)
    if policy is not None:
        assert {rule.name for rule in above.rules} <= {rule.name for rule in policy.rules}
        assert set(policy.origins) == {rule.name for rule in policy.rules}


@given(policies())
def test_a_document_that_says_nothing_judges_as_the_layer_above(above: Policy) -> None:
    acme = above.model_copy(update={"layer": "organisation"})
    policy = stood(acme, {"name": "team", "layer": "team", "parent": acme.name})

    assert policy is not None
    assert (policy.rules, policy.defects, policy.plan) == (acme.rules, acme.defects, acme.plan)
