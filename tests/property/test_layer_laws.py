"""A policy that only tightens another approves nothing that the other would not; limits from samples hold their rate."""

import random

from hypothesis import given
from hypothesis import strategies as st
from judging_cases import bodies, outcome, policies

from gate.domain.evidence import DefectCode, Evidence
from gate.domain.layers import RuleChange, loosened, rule_changes
from gate.domain.limits import rate_interval
from gate.domain.policy import Policy
from gate.domain.verdict import Enforcement, Outcome

deltas = st.sampled_from([-0.25, 0.0, 0.0, 0.25])


@st.composite
def layers(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """A policy, and one made from it by moving limits and enforcements, leaving rules out and changing defects."""
    upper = draw(policies())
    rules = []
    for rule in upper.rules:
        moved = {key: getattr(rule, key) for key in ("at_least", "at_most") if getattr(rule, key) is not None}
        moved = {key: limit + draw(deltas) for key, limit in moved.items()}
        enforcement = draw(st.sampled_from([rule.enforcement, rule.enforcement, *Enforcement]))
        if draw(st.integers(0, 9)):
            rules.append(rule.model_copy(update={**moved, "enforcement": enforcement}))
    defects = draw(st.dictionaries(st.sampled_from(list(DefectCode)), st.sampled_from(list(Enforcement)), max_size=1))
    return upper, upper.model_copy(update={"rules": tuple(rules) or upper.rules, "defects": defects})


@given(layers(), bodies())
def test_a_lower_layer_that_is_let_stand_never_loosens(pair: tuple[Policy, Policy], evidence: Evidence) -> None:
    upper, lower = pair
    if not loosened(upper, lower):
        assert outcome(lower, evidence) is not Outcome.APPROVED or outcome(upper, evidence) is Outcome.APPROVED


@given(layers(), bodies())
def test_rules_that_were_only_added_or_tightened_never_let_more_through(
    pair: tuple[Policy, Policy], evidence: Evidence
) -> None:
    one, other = pair[0], pair[1].model_copy(update={"defects": pair[0].defects})
    if set(rule_changes(one, other).values()) <= {RuleChange.ADDED, RuleChange.TIGHTENED}:
        assert outcome(other, evidence) is not Outcome.APPROVED or outcome(one, evidence) is Outcome.APPROVED


@given(layers())
def test_what_one_way_is_tightened_is_loosened_the_other_way(pair: tuple[Policy, Policy]) -> None:
    mirrored = {
        RuleChange.ADDED: RuleChange.REMOVED,
        RuleChange.REMOVED: RuleChange.ADDED,
        RuleChange.TIGHTENED: RuleChange.LOOSENED,
        RuleChange.LOOSENED: RuleChange.TIGHTENED,
    }
    there, back = rule_changes(*pair), rule_changes(*pair[::-1])

    assert {name: mirrored.get(change, change) for name, change in there.items()} == back


@given(policies())
def test_a_policy_does_not_loosen_itself(policy: Policy) -> None:
    assert loosened(policy, policy) == ()


@given(policies(), st.data())
def test_leaving_a_rule_out_or_weakening_what_it_leads_to_is_a_loosening(policy: Policy, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(policy.rules) - 1))
    rest = policy.rules[:at] + policy.rules[at + 1 :]
    assert loosened(policy, policy.model_copy(update={"rules": rest}))

    weaker = policy.rules[at].model_copy(update={"enforcement": Enforcement.DRY_RUN})
    changed = policy.model_copy(update={"rules": (*policy.rules[:at], weaker, *policy.rules[at + 1 :])})
    assert bool(loosened(policy, changed)) == (policy.rules[at].enforcement is not Enforcement.DRY_RUN)


def test_the_interval_of_a_limits_rate_covers_the_true_rate_as_often_as_it_says() -> None:
    rng, n, beyond, repeats = random.Random(7), 100, 2, 2000
    lower, upper = rate_interval(n, beyond, 0.1)
    # Uniform numbers: the true rate beyond the limit is one minus the limit.
    limits = (sorted(rng.random() for _ in range(n))[n - 1 - beyond] for _ in range(repeats))
    covered = sum(lower <= 1 - limit <= upper for limit in limits)

    assert abs(covered / repeats - 0.9) < 0.03
