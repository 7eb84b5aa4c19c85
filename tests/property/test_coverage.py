"""How often intervals and decisions miss in a thousand simulated repeats, with the worst kind of stopping (seeds fixed)."""

import numpy as np
import pytest

from tasks.measurements.confidence import GradedSequence, MeanSequence, PairedSequence, betting_interval
from tasks.measurements.overlap import overlap_bound

REPEATS, ALPHA = 1000, 0.1
# A true error of exactly α is found more often than this once in a hundred such tests.
MOST = ALPHA + 2.33 * np.sqrt(ALPHA * (1 - ALPHA) / REPEATS)


def differences(rng: np.random.Generator, lost: float, won: float, count: int) -> np.ndarray:
    """Candidate minus base on right-or-wrong items, of which a share is lost and a share won."""
    return rng.choice([-1.0, 0.0, 1.0], p=[lost, 1 - lost - won, won], size=count)


def test_the_betting_sequence_misses_the_mean_at_any_time_at_most_as_often_as_it_may() -> None:
    rng, missed = np.random.default_rng(20), 0
    for _ in range(REPEATS):
        sequence = MeanSequence(ALPHA)
        sequence.feed((rng.random(60) < 0.9).astype(float))
        found = sequence.interval()
        missed += not found.lower <= 0.9 <= found.upper
    assert 0 < missed / REPEATS <= MOST


def test_a_betting_interval_of_scores_in_between_misses_at_most_as_often_as_it_may() -> None:
    rng, missed = np.random.default_rng(21), 0
    for _ in range(REPEATS):
        found = betting_interval(rng.beta(4, 1, size=30), ALPHA)
        missed += not found.lower <= 0.8 <= found.upper
    assert missed / REPEATS <= MOST


@pytest.mark.parametrize(
    ("lost", "won", "wrong"), [(0.1, 0.0, "retained"), (0.15, 0.05, "retained"), (0.099, 0.0, "lost")]
)
def test_whoever_stops_when_it_suits_decides_wrongly_at_most_as_often_as_allowed(
    lost: float, won: float, wrong: str
) -> None:
    rng, errors = np.random.default_rng(22), 0
    for _ in range(REPEATS):
        paired = PairedSequence(ALPHA)
        paired.feed(differences(rng, lost, won, 60))
        # The running intersection decides in the end exactly if it did at any item before.
        errors += paired.decided(0.1) == wrong
    assert errors / REPEATS <= MOST


def test_a_graded_sequence_misses_the_mean_at_any_time_at_most_as_often_as_it_may() -> None:
    rng, missed = np.random.default_rng(23), 0
    for _ in range(REPEATS):
        sequence = GradedSequence(ALPHA)
        sequence.feed(np.clip(rng.normal(-0.05, 0.08, size=120), -1, 1))
        found = sequence.interval()
        missed += not found.lower <= -0.05 <= found.upper
    assert missed / REPEATS <= MOST


def test_five_capabilities_at_their_margins_are_seldom_all_called_kept() -> None:
    rng, wrong = np.random.default_rng(24), 0
    for _ in range(REPEATS // 5):
        kept = []
        for _ in range(5):
            paired = PairedSequence(ALPHA / 5)
            paired.feed(differences(rng, 0.1, 0.0, 60))
            kept.append(paired.decided(0.1) == "retained")
        wrong += any(kept)
    assert wrong / (REPEATS // 5) <= ALPHA


def test_the_overlap_bound_exceeds_the_candidates_score_at_most_as_often_as_it_may() -> None:
    rng, exceeded = np.random.default_rng(25), 0
    base, right = np.array([0.5, 0.3, 0.2]), np.array([True, True, False])
    candidate = np.array([0.3, 0.2, 0.5])
    for _ in range(REPEATS):
        drawn = rng.choice(3, p=base, size=24)
        found = overlap_bound(right[drawn], np.log(base[drawn]), np.log(candidate[drawn]), ALPHA)
        assert found.lower is not None
        exceeded += found.lower > candidate[right].sum()
    assert exceeded / REPEATS <= ALPHA / 2
