"""Lower bounds on a candidate's score: greedy agreement, overlap and the certificate, against what they bound."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from tasks.measurements.agreement import agrees, greedy_agreement
from tasks.measurements.certificate import isotropic_certificate
from tasks.measurements.confidence import Interval, clopper_pearson
from tasks.measurements.overlap import overlap_bound
from tasks.measurements.perturbation import normals

VOCABULARY, LENGTH = 3, 2


class TwoTokens:
    """A model of answers of two tokens over three letters, whole on paper."""

    def __init__(self, name: str) -> None:
        self.first, self.second = normals(5, f"{name}/1", 0, [3]).double(), normals(5, f"{name}/2", 0, [3, 3]).double()

    def log_p(self, answer: tuple[int, int]) -> float:
        return float(self.first.log_softmax(-1)[answer[0]] + self.second.log_softmax(-1)[answer])

    def greedy(self) -> tuple[int, int]:
        start = int(self.first.argmax())
        return start, int(self.second[start].argmax())

    def logits_after(self, answer: tuple[int, int]) -> torch.Tensor:
        return torch.stack([self.first, self.second[answer[0]]])


ANSWERS = list(itertools.product(range(VOCABULARY), repeat=LENGTH))


def test_agreement_on_every_token_means_that_both_write_the_same_answer() -> None:
    same = 0
    for number in range(60):
        base, candidate = TwoTokens(f"base{number}"), TwoTokens(f"candidate{number}")
        answer = base.greedy()
        agreed = agrees(candidate.logits_after(answer), answer)
        assert agreed == (candidate.greedy() == answer)
        same += agreed
    assert 0 < same < 60


def test_the_agreement_bound_counts_only_what_the_base_has_right() -> None:
    found = greedy_agreement([True, True, False, True], [True, False, True, True], 0.05)
    assert found == clopper_pearson(2, 4, 0.05)


def test_a_tie_and_what_is_no_number_are_no_agreement() -> None:
    assert not agrees(torch.tensor([[1.0, 1.0]]), [0])
    assert not agrees(torch.tensor([[20.0, 20.0 - 1e-5]]), [0])
    assert not agrees(torch.tensor([[math.nan, 1.0]]), [1])
    assert not agrees(torch.tensor([[20.0, 19.9]], dtype=torch.bfloat16), [0])
    assert agrees(torch.tensor([[20.0, 19.9]]), [0])


def test_the_overlap_bounds_the_sampled_score_by_the_common_mass_of_right_answers() -> None:
    right = {(0, 1), (2, 2), (1, 0)}
    for number in range(20):
        base, candidate = TwoTokens(f"base{number}"), TwoTokens(f"candidate{number}")
        p, q = (np.exp([m.log_p(a) for a in ANSWERS]) for m in (base, candidate))
        score = sum(q[i] for i, a in enumerate(ANSWERS) if a in right)
        common = sum(min(p[i], q[i]) for i, a in enumerate(ANSWERS) if a in right)
        drawn = np.random.default_rng(number).choice(len(ANSWERS), size=3000, p=p / p.sum())
        found = overlap_bound([ANSWERS[i] in right for i in drawn], np.log(p)[drawn], np.log(q)[drawn], 0.001)
        assert common <= score + 1e-12
        assert found.lower <= common <= found.upper
        assert found.lower <= score


def test_a_candidate_that_is_the_base_overlaps_with_all_that_is_right() -> None:
    log_p = [-1.0, -2.0, -0.5, -9.0]
    assert overlap_bound([True, True, False, True], log_p, log_p, 0.05).value == 0.75


def test_a_likelier_answer_counts_once_and_no_number_counts_nothing() -> None:
    assert overlap_bound([True], [-5.0], [-1.0], 0.05).value == 1.0
    assert overlap_bound([True], [-5.0], [-math.inf], 0.05).value == 0.0
    assert overlap_bound([True], [-5.0], [math.nan], 0.05).value == 0.0


def noisy(lower: float, alpha: float = 0.01) -> Interval:
    return Interval(min(1.0, lower + 0.05), lower, 1.0, alpha, 6, "student-t")


def test_the_published_example_reaches_less_than_a_cast_to_sixteen_bits_moves() -> None:
    """σ = 0.003 and p = 0.9, on 7.6 billion weights: radius 0.0038 against a norm of 2 to 4."""
    found = isotropic_certificate([(0.003, noisy(0.9))], norm=2.2)
    assert found.radius.value == pytest.approx(0.0038, abs=5e-5)
    assert found.vacuous
    assert found.score.value == 0.0


def test_for_a_half_space_the_certificate_is_exact() -> None:
    """S(θ) = 1 where w·θ ≥ −b, |w| = 1, moved by Δ against w: the smoothed score is Φ((b − |Δ|)/σ) on the nose."""
    b, sigma, moved = 0.7, 0.5, 0.4
    found = isotropic_certificate([(sigma, noisy(float(stats.norm.cdf(b / sigma))))], norm=moved)
    assert found.score.value == pytest.approx(stats.norm.cdf((b - moved) / sigma))
    assert found.radius.value == pytest.approx(b)
    assert not found.vacuous


def test_the_scale_that_reaches_farthest_is_taken_and_all_share_the_error() -> None:
    found = isotropic_certificate([(0.01, noisy(0.99)), (0.02, noisy(0.9)), (0.03, noisy(0.2))], norm=0.01)
    assert found.sigma == 0.02
    assert found.score.alpha == pytest.approx(0.03)
    assert found.score.upper is None


def test_without_a_score_above_one_half_the_radius_is_nothing() -> None:
    found = isotropic_certificate([(0.01, noisy(0.3))], norm=0.0)
    assert (found.radius.value, found.vacuous) == (0.0, False)
    assert isotropic_certificate([(0.01, noisy(0.3))], norm=1e-9).vacuous


def test_scores_without_a_lower_bound_certify_nothing() -> None:
    assert isotropic_certificate([(0.01, Interval(1.0, None, None, 0.01, 1, "student-t"))], norm=0.1) is None
    assert isotropic_certificate([], norm=0.1) is None


def test_certainty_of_finitely_many_draws_is_not_believed() -> None:
    assert isotropic_certificate([(1.0, noisy(1.0))], norm=0.1).radius.value < 8
