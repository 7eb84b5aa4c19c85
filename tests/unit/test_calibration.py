"""Limits learned for one base: what they promise, what they catch, and that they mean nothing for another base."""

import math
import random
from datetime import date
from pathlib import Path

import pytest
import yaml
from builders import a_checkpoint, an_evidence

from gate.adapters.policy_files import SHIPPED, load_policy
from gate.domain.calibration import Calibrated, calibrate, calibrated_rules
from gate.domain.checkpoint import FileDigest
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Estimate, Evidence, Measurement, Name
from gate.domain.judging import judge
from gate.domain.layers import loosened
from gate.domain.limits import needed, rate_interval, suggest_together
from gate.domain.policy import Policy, Rule
from gate.domain.verdict import Enforcement, Outcome, Result
from tasks.calibrate_command import fragment

DEFAULT = load_policy(SHIPPED / "default.yaml")
NEAR = Rule(name="near", measurement=Name.DISPLACEMENT_RELATIVE, at_most=1, enforcement=Enforcement.REVIEW, reason="r")
ROOMY = Rule(
    name="roomy",
    measurement=Name.HEADROOM,
    capability="math",
    at_least=0,
    enforcement=Enforcement.REVIEW,
    reason="r",
)
POLICY = Policy(name="p", rules=(NEAR, ROOMY), protected={"aliases": ["champion"]})
DAY = date(2026, 11, 23)


def measured(number: int, near: float, roomy: float, **changes: object) -> Evidence:
    """Evidence on bytes of its own, with exact values for the two rules."""
    found = (
        Measurement(name=Name.DISPLACEMENT_RELATIVE, estimate=Estimate.exact(near)),
        Measurement(name=Name.HEADROOM, capability="math", estimate=Estimate.exact(roomy)),
    )
    files = (FileDigest(path="model.safetensors", sha256=f"{number:064x}", size=1),)
    return an_evidence(candidate=a_checkpoint(files=files), measurements=found, **changes)


def learned(good: list[Evidence], bad: list[Evidence], rate: float = 0.1) -> Calibrated:
    return calibrate(POLICY, POLICY.rules, good, bad, rate=rate, alpha=0.05, day=DAY)


@pytest.fixture(scope="module")
def sixty() -> Calibrated:
    """Sixty good ones: 0.001 to 0.060 away, and the nearer the less room; six bad ones, half of them far away."""
    good = [measured(i, i / 1000, 10 + i / 10) for i in range(1, 61)]
    return learned(good, [measured(100 + i, 0.01 if i % 2 else 0.5, 50) for i in range(6)])


def test_rules_take_turns_in_cutting_off_the_worst_that_is_left() -> None:
    good = [measured(i, i / 1000, 10 + i / 10) for i in range(1, 101)]

    near, roomy = suggest_together([NEAR, ROOMY], good, rate=0.1, alpha=0.05)

    # Of 100, at 10 % and one half of 5 %, five may be cut off: the three farthest, and the two with the least room.
    assert (near.limit, roomy.limit) == (0.098, pytest.approx(10.2))
    assert (near.not_passing, roomy.not_passing) == (2, 1)
    assert (near.rate_lower, near.rate_upper) == rate_interval(100, 4, 0.05)
    assert near.rate_upper <= 0.1 < rate_interval(100, 5, 0.05)[1]


def test_one_rule_alone_needs_fewer_versions_than_several() -> None:
    assert [needed(0.05, 0.05, rules) for rules in (1, 2, 3)] == [72, 110, 142]
    # With none failing but the one that each rule cuts: sum over i < rules of binom(n, i) rate^i (1 - rate)^(n - i).
    n, rate = 110, 0.05
    chance = (1 - rate) ** n + n * rate * (1 - rate) ** (n - 1)
    assert chance <= 0.025 < (1 - rate) ** (n - 1) + (n - 1) * rate * (1 - rate) ** (n - 2)


def test_the_rate_that_two_rules_promise_together_holds_in_repeated_draws() -> None:
    rng = random.Random(7)
    broken = 0
    for repeat in range(300):
        pairs = [(rng.random(), rng.random()) for _ in range(60)]
        near, roomy = suggest_together(
            [NEAR, ROOMY],
            [measured(1000 * repeat + i, x, 1 - max(x, y)) for i, (x, y) in enumerate(pairs)],
            rate=0.1,
            alpha=0.05,
        )
        # One draw passes both rules where x and y are below the smaller and the second limit: its chance is an area.
        x_most, both_most = near.limit, 1 - roomy.limit
        passing = min(x_most, both_most) * both_most
        broken += 1 - passing > 0.1
    # The promise may break in one of forty, so in 300 repeats 18 or more are as likely as 4 in 10,000.
    assert broken < 18


def test_too_few_good_ones_are_refused_with_the_number_that_is_needed() -> None:
    few = learned([measured(i, i / 1000, 10) for i in range(1, 54)], [measured(99, 1, 1)])

    assert few.policy is None
    assert few.refused.startswith("expected at least 54 versions for 2 rules with a rate together of 0.1, found 53")
    assert learned([measured(i, i / 1000, 10) for i in range(1, 55)], [measured(99, 1, 1)]).policy is not None


def test_a_good_one_without_the_measurement_is_no_ground_for_a_limit() -> None:
    good = [measured(i, i / 1000, 10) for i in range(54)]
    lacking = [e.model_copy(update={"measurements": e.measurements[:1]}) for e in good[:2]]

    found = learned([*lacking, *good[2:]], [measured(99, 1, 1)])

    assert found.policy is None
    assert "2 of 54 versions lack the measurement" in found.refused


def test_the_report_tells_how_good_and_bad_part_with_exact_intervals(sixty: Calibrated) -> None:
    near, roomy, together = sixty.separations

    assert [each.rule for each in sixty.separations] == ["near", "roomy", ""]
    assert (near.bad_held, near.bad, roomy.bad_held, together.bad_held) == (3, 6, 0, 3)
    assert near.bad_interval == pytest.approx((0.1181, 0.8819), abs=1e-4)
    assert roomy.bad_interval == pytest.approx((0.0, 0.4593), abs=1e-4)
    assert together.good_held <= 2


def test_the_new_policy_differs_in_its_limits_alone_and_says_what_they_rest_on(sixty: Calibrated) -> None:
    assert sixty.policy is not None
    near, roomy = sixty.policy.rules
    assert near.calibration is not None

    assert near.calibration == roomy.calibration
    assert (near.at_most, roomy.at_least) == (0.06, 10.1)
    assert near.calibration.model_dump(include={"good", "bad", "bad_held", "false_block", "confidence", "rules"}) == {
        "rules": ("near", "roomy"),
        "false_block": 0.1,
        "confidence": 0.95,
        "good": 60,
        "bad": 6,
        "bad_held": 3,
    }
    bare = [
        r.model_copy(update={"calibration": None, "at_most": o.at_most, "at_least": o.at_least})
        for r, o in zip(sixty.policy.rules, POLICY.rules, strict=True)
    ]
    assert sixty.policy.model_copy(update={"rules": tuple(bare)}) == POLICY


@pytest.mark.parametrize(
    ("value", "at_most", "at_least"), [(0.0123456, 0.01235, 0.01234), (-0.0123456, -0.01234, -0.01235)]
)
def test_a_limit_is_rounded_away_from_what_it_must_let_through(value: float, at_most: float, at_least: float) -> None:
    good = [measured(i, value, value) for i in range(60)]

    found = learned(good, [measured(99, 1, 1)])

    assert found.policy is not None
    assert (found.policy.rules[0].at_most, found.policy.rules[1].at_least) == (at_most, at_least)


def test_a_limit_learned_on_one_base_never_approves_a_candidate_of_another(sixty: Calibrated) -> None:
    assert sixty.policy is not None
    ours, theirs = measured(1, 0.001, 20), measured(1, 0.001, 20, base_digest="f" * 64)
    other_suite = measured(1, 0.001, 20, suite_digest="f" * 64)
    other_plan = ours.model_copy(update={"plan": ours.plan.model_copy(update={"noise_items": 3})})

    outcomes = [judge(sixty.policy, each, subject="s", now=0) for each in (ours, theirs, other_suite, other_plan)]

    assert [v.outcome for v in outcomes] == [Outcome.APPROVED, *[Outcome.NEEDS_REVIEW] * 3]
    assert {f.result for f in outcomes[1].findings} == {Result.MISSING}
    assert "calibrated for base bbbbbbbbbbbb, found ffffffffffff" in outcomes[1].reason
    assert "calibrated for suite cccccccccccc, found ffffffffffff" in outcomes[2].reason


def test_dropping_a_calibration_loosens_and_adding_one_tightens(sixty: Calibrated) -> None:
    assert sixty.policy is not None
    free = sixty.policy.model_copy(
        update={"rules": tuple(r.model_copy(update={"calibration": None}) for r in sixty.policy.rules)}
    )

    assert loosened(free, sixty.policy) == ()
    assert [each.split(":")[0] for each in loosened(sixty.policy, free)] == ["rules.near", "rules.roomy"]


def test_what_is_written_loads_as_the_same_policy(sixty: Calibrated, tmp_path: Path) -> None:
    assert sixty.policy is not None
    file = tmp_path / "policy.yaml"
    file.write_text(fragment(sixty.policy, sixty, 0.1, 0.05))

    assert (load_policy(file).digest, load_policy(file).rules) == (sixty.policy.digest, sixty.policy.rules)
    assert yaml.safe_load(file.read_text())["rules"][0]["calibration"]["day"] == "2026-11-23"
    assert "# together would hold back" in file.read_text()
    assert "at confidence 0.95: of good fine-tunes like the 60 used, they hold back at most 0.1." in file.read_text()


def test_a_policy_without_calibrations_keeps_its_digest() -> None:
    assert "calibration" not in POLICY.model_dump_json()


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ([measured(1, 1, 1)], [measured(1, 1, 1)], "found 1 among both"),
        ([measured(1, 1, 1)], [], "found none of one kind"),
        ([measured(1, 1, 1)], [measured(2, 1, 1, base_digest="f" * 64)], "expected one base_digest"),
        ([measured(1, 1, 1)], [measured(2, 1, 1, suite_digest=None)], "expected one suite_digest"),
    ],
    ids=["in both", "no bad ones", "two bases", "no suite"],
)
def test_evidence_that_does_not_belong_together_is_refused(
    good: list[Evidence], bad: list[Evidence], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        learned(good, bad)


def test_by_default_the_rules_that_hold_back_and_depend_on_the_base_are_calibrated() -> None:
    assert [r.name for r in calibrated_rules(DEFAULT)] == ["not-toward-the-worst-case", "still-a-fine-tune"]
    assert [r.name for r in calibrated_rules(DEFAULT, ["not-brittle"])] == ["not-brittle"]
    with pytest.raises(InvalidInput, match="which the suite's margins decide"):
        calibrated_rules(DEFAULT, ["capabilities-kept"])
    with pytest.raises(InvalidInput, match="expected rules of policy default"):
        calibrated_rules(DEFAULT, ["absent"])


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        needed(rate, 0.05)
