"""Forward KL against paper values and a naive reference."""

import math

import pytest
import torch

from tasks.measurements.divergence import CLIP, forward_divergence, outline, position_divergences
from tasks.measurements.perturbation import normals


def logits(name: str, positions: int = 6, vocabulary: int = 40) -> torch.Tensor:
    return 3 * normals(0, name, 0, [positions, vocabulary])


def naive(base: torch.Tensor, candidate: torch.Tensor) -> list[float]:
    found = []
    for p_V, q_V in zip(base.double().softmax(-1).tolist(), candidate.double().softmax(-1).tolist(), strict=True):
        found.append(sum(p * math.log(p / q) for p, q in zip(p_V, q_V, strict=True)))
    return found


def test_it_is_the_textbook_sum_over_the_vocabulary() -> None:
    base, candidate = logits("base"), logits("candidate")
    assert position_divergences(outline(base), candidate) == pytest.approx(naive(base, candidate), rel=1e-9)


def test_between_two_coins_it_is_the_binary_divergence() -> None:
    p, q = 0.8, 0.3
    base, candidate = (torch.tensor([[math.log(x), math.log(1 - x)]]) for x in (p, q))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert position_divergences(outline(base), candidate)[0] == pytest.approx(expected, rel=1e-6)


def test_a_model_does_not_diverge_from_itself_at_all() -> None:
    for kept in (5, 40):
        assert position_divergences(outline(logits("base"), kept), logits("base")) == [0.0] * 6


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    base, candidate = logits("base"), logits("candidate").double()
    assert position_divergences(outline(base), candidate + 7) == pytest.approx(
        position_divergences(outline(base), candidate)
    )


def test_tokens_taken_together_only_lessen_it_and_little_when_they_are_rare() -> None:
    base, candidate = logits("base"), logits("candidate")
    whole = position_divergences(outline(base), candidate)
    for kept in (1, 5, 20):
        assert all(m <= w for m, w in zip(position_divergences(outline(base, kept), candidate), whole, strict=True))
    assert position_divergences(outline(base, 30), candidate) == pytest.approx(whole, rel=0.02)


def test_what_the_candidate_rules_out_and_what_is_no_number_counts_as_the_clip() -> None:
    base = torch.zeros(2, 3)
    candidate = torch.tensor([[0.0, 0.0, -math.inf], [math.nan, 0.0, 0.0]])
    found = position_divergences(outline(base), candidate)
    assert found == [CLIP, CLIP]
    assert forward_divergence([found, [0.1]], None, 0.05).method.endswith("2 positions clipped")


def test_what_the_base_rules_out_counts_nothing() -> None:
    base, candidate = torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, 0.0]])
    assert position_divergences(outline(base), candidate)[0] == pytest.approx(math.log(2))


def test_first_positions_are_summed_per_answer_and_averaged_over_answers() -> None:
    answers = [[0.5, 0.25, 0.25], [1.5]]
    values = [forward_divergence(answers, first, 0.05).value for first in (1, 2, None)]
    assert values == [1.0, 1.125, 1.25]
    assert forward_divergence(answers, None, 0.05).lower == 0.0
    assert forward_divergence(answers, None, 0.05).n == 2


def test_drawing_answers_estimates_the_divergence_of_whole_answers() -> None:
    """Answers of two tokens over three letters: the chain rule's sum against every answer written out."""
    first, second = logits("p1", 1, 3), logits("p2", 3, 3)
    first_q, second_q = logits("q1", 1, 3), logits("q2", 3, 3)
    p, q = (a.double().softmax(-1).T * b.double().softmax(-1) for a, b in ((first, second), (first_q, second_q)))
    exact = float((p * (p / q).log()).sum())
    step, after = position_divergences(outline(first), first_q)[0], position_divergences(outline(second), second_q)
    drawn = torch.multinomial(
        first.double().softmax(-1)[0], 4000, replacement=True, generator=torch.Generator().manual_seed(1)
    )
    found = forward_divergence([[step, after[int(token)]] for token in drawn], None, 0.05)
    assert found.lower <= exact <= found.upper
    assert found.value == pytest.approx(exact, rel=0.05)
