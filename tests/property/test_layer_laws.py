"""A policy that only tightens another approves nothing that the other would not; limits from samples hold their rate."""

import random

from builders import an_evidence
from hypothesis import given
from hypothesis import strategies as st
from judging_cases import (
    FIELDS,
    RULED,
    TERMS,
    bodies,
    falsehoods,
    idle,
    limits,
    outcome,
    policies,
    ruled,
    sound_rule,
)

from gate.domain.breaking import for_seconds
from gate.domain.evidence import Evidence
from gate.domain.judging import judge
from gate.domain.layers import RuleChange, loosened, rule_changes
from gate.domain.limits import rate_interval
from gate.domain.permission import answer
from gate.domain.policy import Policy, Rule
from gate.domain.promotion import STRICTEST_FIRST, mode_of
from gate.domain.verdict import Enforcement, Outcome
from gate.domain.waiver import Approval, Waiver

NOW = 1_795_000_000
DAY = 86_400
PLACES = ("production", "Production", "PRODUCTION ", "staging", "sandbox")
deltas = st.sampled_from([-0.25, 0.0, 0.25])


@st.composite
def changed(draw: st.DrawFn, rule: Rule) -> Rule:
    """A rule with up to two of its fields said otherwise; the same where that is no rule."""
    said = rule.model_dump()
    for field in draw(st.lists(st.sampled_from(["limit", *sorted(FIELDS)]), max_size=2, unique=True)):
        if field != "limit":
            said[field] = draw(FIELDS[field])
        elif draw(st.integers(0, 3)):
            key = "at_least" if rule.at_least is not None else "at_most"
            said[key] = said[key] if said[key] == "margin" else said[key] + draw(deltas)
        else:
            said |= {"at_least": None, "at_most": None, **draw(limits(rule.measurement))}
    return sound_rule(said) or rule


@st.composite
def layers(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """A policy, and one made from it by changing rules, leaving some out, adding one, and by changing other terms."""
    upper = draw(policies()).model_copy(update={key: draw(TERMS[key]) for key in sorted(TERMS)})
    rules = [draw(changed(rule)) for rule in upper.rules if draw(st.integers(0, 9))]
    if not draw(st.integers(0, 3)):
        rules.append(draw(ruled(9, draw(st.sampled_from(RULED)))))
    terms = draw(st.lists(st.sampled_from(sorted(TERMS)), max_size=2, unique=True))
    other = {key: draw(TERMS[key]) for key in terms}
    return upper, upper.model_copy(update={"rules": tuple(rules) or upper.rules, **other})


@st.composite
def granted(draw: st.DrawFn) -> list[Waiver]:
    """Waivers of the evidence's bytes under this policy, approved by one or by two others."""
    digest = an_evidence().candidate.digest
    made = []
    for rule in sorted(draw(st.sets(st.sampled_from(["r0", "r1", "r2", "r9"])))):
        names = draw(st.sampled_from([("ana",), ("ana", "bo")]))
        approvals = tuple(Approval(approver=name, at=NOW) for name in names)
        terms = {"owner": "nlp", "reason": "why", "ticket": "RISK-7", "requested_by": "sub", "requested_at": NOW - 1}
        ends = NOW + draw(st.integers(1, 70)) * DAY
        of = {"candidate_digest": digest, "policy": "default", "rule": rule}
        made.append(Waiver.model_validate({**of, **terms, "expires_at": ends, "approvals": approvals}))
    return made


@given(layers(), bodies(), falsehoods, granted())
def test_a_lower_layer_that_is_let_stand_never_loosens(
    pair: tuple[Policy, Policy], evidence: Evidence, false: set[str], waivers: list[Waiver]
) -> None:
    if loosened(*pair):
        return
    above, below = (
        judge(each, evidence, subject="s", now=NOW, idle=idle(each, false), waivers=waivers) for each in pair
    )
    if below.outcome is Outcome.APPROVED:
        assert above.outcome is Outcome.APPROVED
        assert below.expires_at <= above.expires_at
    if answer(pair[1], "done", None, below, NOW).allowed:
        assert answer(pair[0], "done", None, above, NOW).allowed


@given(layers())
def test_a_lower_layer_that_is_let_stand_lets_no_place_go_and_no_glass_be_broken_for_longer(
    pair: tuple[Policy, Policy],
) -> None:
    if loosened(*pair):
        return
    upper, lower = pair
    for place in PLACES:
        wanted, found = (mode_of(each, "alias", place) for each in pair)
        assert wanted is None or (found and STRICTEST_FIRST.index(found) <= STRICTEST_FIRST.index(wanted))
    if lower.break_glass is not None:
        assert for_seconds(upper, lower.break_glass.max_hours) == lower.break_glass.max_hours * 3600


@given(layers(), bodies(), falsehoods)
def test_rules_that_were_only_added_or_tightened_never_let_more_through(
    pair: tuple[Policy, Policy], evidence: Evidence, false: set[str]
) -> None:
    one, other = pair[0], pair[0].model_copy(update={"rules": pair[1].rules})
    if set(rule_changes(one, other).values()) <= {RuleChange.ADDED, RuleChange.TIGHTENED}:
        assert outcome(other, evidence, false) is not Outcome.APPROVED or (
            outcome(one, evidence, false) is Outcome.APPROVED
        )


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
