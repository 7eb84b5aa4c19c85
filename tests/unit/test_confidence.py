"""Intervals: closed forms, and how often they miss when simulated (all seeds fixed)."""

import json

import numpy as np
import pytest
from scipy import stats

from tasks.measurements.confidence import (
    GradedSequence,
    MeanSequence,
    PairedSequence,
    betting_interval,
    clopper_pearson,
    mean_interval,
    paired_interval,
    student_interval,
)


def naive_rejected(xs: list[float], m: float, alpha: float) -> bool:
    """One candidate mean, wealth multiplied out bet by bet: whether anybody ever had 2/α times the stake."""
    weights = np.array(MeanSequence.WEIGHTS) / sum(MeanSequence.WEIGHTS)
    up, down = np.ones(len(weights)), np.ones(len(weights))
    for x in xs:
        up *= [1 + f / m * (x - m) for f in MeanSequence.FRACTIONS]
        down *= [1 + f / (1 - m) * (m - x) for f in MeanSequence.FRACTIONS]
        if max(weights @ up, weights @ down) >= 2 / alpha:
            return True
    return False


def test_clopper_pearson_has_the_rule_of_three() -> None:
    assert clopper_pearson(0, 300, 0.1).upper == pytest.approx(1 - 0.05 ** (1 / 300))
    assert clopper_pearson(300, 300, 0.1).lower == pytest.approx(0.05 ** (1 / 300))


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_clopper_pearson_covers_by_summing_all_outcomes(p: float) -> None:
    n = 40
    missed = 0.0
    for k in range(n + 1):
        found = clopper_pearson(k, n, 0.05)
        missed += stats.binom.pmf(k, n, p) * (not found.lower <= p <= found.upper)
    assert missed <= 0.05


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="found k=3, n=2"):
        clopper_pearson(3, 2, 0.05)


def test_the_sequence_keeps_what_no_naive_bettor_ever_rejected() -> None:
    xs = np.random.default_rng(0).beta(8, 3, size=60).tolist()
    sequence = MeanSequence(0.05)
    sequence.feed(xs)
    found = sequence.interval()
    assert found.lower < found.value < found.upper
    assert found.value == pytest.approx(np.mean(xs))
    for m in (0.3, 0.5, found.lower):
        assert naive_rejected(xs, m, 0.05)
    for m in (found.lower + 0.001, found.value, found.upper - 0.001):
        assert not naive_rejected(xs, m, 0.05)
    assert naive_rejected(xs, found.upper, 0.05)


def test_the_betting_interval_shrinks_to_the_mean() -> None:
    xs = np.random.default_rng(1).random(4000)
    found = betting_interval(xs, 0.05)
    assert found.upper - found.lower < 0.06


def test_without_data_everything_is_possible() -> None:
    found = betting_interval([], 0.05)
    assert (found.lower, found.upper, found.n) == (0.0, 1.0, 0)


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_a_constant_at_the_edge_keeps_the_edge(x: float) -> None:
    found = betting_interval([x] * 500, 0.05)
    assert found.value == x
    assert found.lower <= x <= found.upper
    assert found.upper - found.lower < 0.02


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.97])
def test_the_sequence_covers_at_every_time_at_once(mean: float) -> None:
    rng, alpha, repeats = np.random.default_rng(2), 0.2, 150
    missed = 0
    for _ in range(repeats):
        sequence = MeanSequence(alpha)
        sequence.feed((rng.random(120) < mean).astype(float))
        found = sequence.interval()
        # The running intersection ends outside the truth exactly if any time before missed it.
        missed += not found.lower <= mean <= found.upper
    assert missed / repeats <= alpha


def test_a_fixed_number_of_items_may_come_in_any_order() -> None:
    xs = np.sort(np.random.default_rng(7).random(80))
    ascending, descending = betting_interval(xs, 0.05), betting_interval(xs[::-1], 0.05)
    assert (ascending.lower, ascending.upper) == (descending.lower, descending.upper)
    assert ascending.lower < ascending.value < ascending.upper


def test_paired_differences_have_the_interval_of_their_halves() -> None:
    differences = np.random.default_rng(8).uniform(-1, 0.5, size=50)
    found, half = paired_interval(differences, 0.05), betting_interval((differences + 1) / 2, 0.05)
    assert (found.lower, found.upper) == (pytest.approx(2 * half.lower - 1), pytest.approx(2 * half.upper - 1))
    assert found.value == pytest.approx(differences.mean())


def test_numbers_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], found 1.5"):
        betting_interval([1.5], 0.05)
    with pytest.raises(ValueError, match="found nan"):
        betting_interval([float("nan")], 0.05)


def test_a_mean_of_zeros_and_ones_is_exact_and_other_scores_are_bet_on() -> None:
    assert mean_interval([0, 1, 1], 0.05) == clopper_pearson(2, 3, 0.05)
    assert mean_interval([0, 1, 0.5], 0.05).method == "betting"


def test_student_covers_the_mean_of_normal_draws() -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(1000):
        found = student_interval(rng.normal(0.7, 0.1, size=6), 0.1)
        missed += not found.lower <= 0.7 <= found.upper
    assert 0.07 < missed / 1000 < 0.13


def test_draws_that_agree_are_not_certainty() -> None:
    found = student_interval([0.9] * 6, 0.05, least_error=0.01)
    assert found.upper - found.value == pytest.approx(0.01 * stats.t.ppf(0.975, 5))


def test_one_draw_has_no_bounds() -> None:
    assert student_interval([0.9], 0.05).lower is None


def test_items_that_all_agree_are_decided_as_the_table_says() -> None:
    for alpha, margin, fewest, most in ((0.01, 0.1, 44, 60), (0.05, 0.1, 35, 44), (0.01, 0.05, 90, 123)):
        paired, needed = PairedSequence(alpha), 0
        while paired.decided(margin) is None:
            paired.feed([0.0])
            needed += 1
        assert paired.decided(margin) == "retained"
        assert fewest <= needed <= most


def test_a_capability_that_is_gone_is_lost_within_twenty_items() -> None:
    paired = PairedSequence(0.01)
    paired.feed([-1.0] * 20)
    assert paired.decided(0.1) == "lost"
    assert paired.interval().value == -1.0


def test_nothing_is_decided_before_the_first_item() -> None:
    assert PairedSequence(0.05).decided(0.1) is None


@pytest.mark.parametrize(
    ("drop", "gain", "wrong"), [(0.10, 0.0, "retained"), (0.13, 0.03, "retained"), (0.09, 0.0, "lost")]
)
def test_stopping_when_decided_is_wrong_no_oftener_than_alpha(drop: float, gain: float, wrong: str) -> None:
    rng, alpha, repeats, errors = np.random.default_rng(4), 0.1, 120, 0
    for _ in range(repeats):
        paired = PairedSequence(alpha)
        for _ in range(20):
            paired.feed(rng.choice([-1.0, 0.0, 1.0], p=[drop, 1 - drop - gain, gain], size=10))
            if decision := paired.decided(0.1):
                errors += decision == wrong
                break
    assert errors / repeats <= alpha


def test_a_decision_agrees_with_the_interval_and_never_turns() -> None:
    rng = np.random.default_rng(5)
    paired, decided = PairedSequence(0.05), None
    for _ in range(300):
        paired.feed([rng.choice([-1.0, 0.0, 1.0], p=[0.02, 0.95, 0.03])])
        found = paired.interval()
        assert found.lower <= found.value <= found.upper
        assert decided is None or paired.decided(0.1) == decided
        decided = paired.decided(0.1)
        assert (decided == "retained") == (found.lower >= -0.1)
    assert decided == "retained"


@pytest.mark.parametrize("graded", [False, True])
def test_a_sequence_goes_on_from_its_saved_state(graded: bool) -> None:
    differences = np.random.default_rng(6).uniform(-1, 1, size=40).tolist()
    whole = PairedSequence(0.05, graded)
    whole.feed(differences)
    half = PairedSequence(0.05, graded)
    half.feed(differences[:17])
    resumed = PairedSequence.from_state(json.loads(json.dumps(half.state())))
    resumed.feed(differences[17:])
    assert resumed.interval() == whole.interval()
    assert resumed.state() == whole.state()


def graded_draws(rng: np.random.Generator, mean: float) -> np.ndarray:
    """Token-accuracy differences of 200 texts: mostly small, every tenth one four times as large."""
    wide = np.where(rng.random(200) < 0.1, 4.0, 1.0)
    return np.clip(rng.normal(mean, 0.05, size=200) * wide + mean * (1 - wide), -1, 1)


def test_a_graded_sequence_covers_at_every_time_at_once() -> None:
    rng, missed = np.random.default_rng(9), 0
    for _ in range(400):
        sequence = GradedSequence(0.1)
        sequence.feed(graded_draws(rng, -0.05))
        found = sequence.interval()
        missed += not found.lower <= -0.05 <= found.upper
    assert missed / 400 <= 0.1


def test_stopping_a_graded_comparison_when_decided_is_wrong_no_oftener_than_alpha() -> None:
    rng, errors = np.random.default_rng(10), 0
    for _ in range(400):
        paired = PairedSequence(0.1, graded=True)
        for batch in np.split(graded_draws(rng, -0.051), 10):
            paired.feed(batch)
            if decision := paired.decided(0.05):
                errors += decision == "retained"
                break
    assert errors / 400 <= 0.1


def test_a_graded_sequence_says_nothing_of_a_few_items_that_agree() -> None:
    sequence = GradedSequence(0.05)
    sequence.feed([0.0] * (GradedSequence.FEWEST - 1))
    assert (sequence.interval().lower, sequence.interval().upper) == (-1.0, 1.0)
    sequence.feed([0.0])
    assert -0.2 < sequence.interval().lower < -0.05


def test_one_lost_text_among_many_widens_a_graded_sequence() -> None:
    whole, with_loss = GradedSequence(0.05), GradedSequence(0.05)
    whole.feed([0.01, -0.01] * 20)
    with_loss.feed([-0.6] + [0.01, -0.01] * 20)
    assert with_loss.interval().lower < 1.5 * whole.interval().lower < 0


def test_numbers_that_are_no_differences_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[-1, 1\], found nan"):
        GradedSequence(0.05).feed([float("nan")])
    with pytest.raises(ValueError, match="found 0"):
        GradedSequence(0)


def test_a_graded_interval_of_a_fixed_number_is_students() -> None:
    differences = np.random.default_rng(11).normal(0, 0.2, size=50)
    found = paired_interval(differences, 0.05, graded=True)
    assert found.method == "student-t"
    assert found.upper - found.value == pytest.approx(student_interval(differences, 0.05).upper - found.value, rel=0.1)
