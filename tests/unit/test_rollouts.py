"""A base's own answers on a real tiny language model, against transformers' own generation."""

import math
from collections import Counter

import pytest
import torch
from tiny_language import tiny_llama, tiny_tokenizer

from tasks.measurements.agreement import agrees
from tasks.measurements.benchmark import Benchmark, Item, answer_loss, answer_losses, opening, score_items
from tasks.measurements.language import Encoded, Forwards, target_logits
from tasks.measurements.rollouts import Question, Rollout, draw, greedy_rollouts, sampled_rollouts

TOKENIZER = tiny_tokenizer()
PROMPTS = ("ab", "what is it", "one, two, three", "x")


def questions(reference: str | None = None) -> list[Question]:
    return [Question(i, tuple(TOKENIZER(p)["input_ids"]), reference) for i, p in enumerate(PROMPTS)]


def teacher_forced(model: object, asked: list[Question], found: list[Rollout]) -> list[torch.Tensor]:
    rows = [Encoded(q.prompt, r.tokens) for q, r in zip(asked, found, strict=True)]
    with torch.no_grad():
        return list(target_logits(model, TOKENIZER, rows))


def test_greedy_answers_are_those_of_transformers() -> None:
    model = tiny_llama()
    for question, found in zip(questions(), greedy_rollouts(model, TOKENIZER, questions(), 12), strict=True):
        ids = torch.tensor([question.prompt])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert list(found.tokens) == written[0, ids.shape[1] :].tolist()


def test_a_model_agrees_with_its_own_greedy_answers() -> None:
    model, asked = tiny_llama(), questions()
    found = greedy_rollouts(model, TOKENIZER, asked, 12)
    logits = teacher_forced(model, asked, found)
    assert all(agrees(logits_TV, r.tokens) for logits_TV, r in zip(logits, found, strict=True))


def test_the_noted_log_probability_is_that_of_the_whole_softmax() -> None:
    model, asked = tiny_llama(), questions()
    found = sampled_rollouts(model, TOKENIZER, asked, 10, seed=3)
    for logits_TV, rollout in zip(teacher_forced(model, asked, found), found, strict=True):
        chosen = logits_TV.double().log_softmax(-1)[range(len(rollout.tokens)), list(rollout.tokens)]
        assert rollout.log_probability == pytest.approx(float(chosen.sum()), abs=1e-4)


def test_answers_depend_on_seed_and_item_and_not_on_their_neighbours() -> None:
    model = tiny_llama()
    together = sampled_rollouts(model, TOKENIZER, questions(), 10, seed=3)
    alone = [sampled_rollouts(model, TOKENIZER, [q], 10, seed=3)[0] for q in questions()]
    assert [r.tokens for r in together] == [r.tokens for r in alone]
    assert [r.tokens for r in together] != [r.tokens for r in sampled_rollouts(model, TOKENIZER, questions(), 10, 4)]


def test_tokens_are_drawn_as_often_as_their_probabilities_say() -> None:
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    counts = Counter(draw(p.log(), 0, item, 0) for item in range(4000))
    assert counts[1] == 0
    for token in (0, 2, 3):
        assert counts[token] / 4000 == pytest.approx(float(p[token]), abs=4 * math.sqrt(0.25 / 4000))


def test_an_answer_ends_with_its_line_where_the_reference_is_one_line() -> None:
    model = tiny_llama()
    free = greedy_rollouts(model, TOKENIZER, questions(), 12)
    for question, rollout in zip(questions(), free, strict=True):
        first = TOKENIZER.decode(rollout.tokens[:3])
        one = Question(question.item, question.prompt, first + "…")
        [asked] = greedy_rollouts(model, TOKENIZER, [one], 3)
        assert asked.tokens == rollout.tokens[:3]
        assert not asked.right


def speaking(text: str) -> torch.nn.Module:
    """A model that writes ``text`` and ends, whatever it is asked: each position's token is its only belief."""
    ids = [*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id]

    class Speaking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.config = tiny_llama().config
            self.asked = 2

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            logits = torch.zeros(*input_ids.shape, len(TOKENIZER))
            for place in range(input_ids.shape[1]):
                said = place + 1 - self.asked
                if 0 <= said < len(ids):
                    logits[:, place, ids[said]] = 30.0
            return type("Out", (), {"logits": logits})()

    return Speaking()


def test_an_answer_is_right_when_it_ends_as_the_reference() -> None:
    asked = [Question(0, tuple(TOKENIZER("ab")["input_ids"]), "no. ")]
    [found] = greedy_rollouts(speaking("no."), TOKENIZER, asked, 12)
    assert found.right
    assert found.tokens[-1] == TOKENIZER.eos_token_id
    assert not greedy_rollouts(speaking("yes"), TOKENIZER, asked, 12)[0].right
    assert greedy_rollouts(speaking("no.\nmore"), TOKENIZER, asked, 12)[0].right


def test_an_answer_cut_off_at_the_limit_is_not_right() -> None:
    asked = [Question(0, tuple(TOKENIZER("ab")["input_ids"]), "no.")]
    [found] = greedy_rollouts(speaking("no."), TOKENIZER, asked, 3)
    assert not found.right
    assert len(found.tokens) == 3


def test_an_answer_is_right_exactly_where_the_scorer_says_so() -> None:
    model = tiny_llama()
    asked = questions()
    written = [TOKENIZER.decode(r.tokens[:4]) for r in greedy_rollouts(model, TOKENIZER, asked, 4)]
    items = tuple(Item(prompt=p, answer=w.strip() or "a") for p, w in zip(PROMPTS, written, strict=True))
    scores = score_items(model, TOKENIZER, Benchmark("c", "exact", items, 0.1), range(len(items)))
    own = [Question(q.item, q.prompt, item.answer) for q, item in zip(asked, items, strict=True)]
    for score, rollout in zip(scores, greedy_rollouts(model, TOKENIZER, own, 64), strict=True):
        assert rollout.right <= bool(score)


def test_what_goes_on_is_the_prompt_or_the_first_half_of_the_text() -> None:
    asked = Benchmark("c", "exact", (Item(prompt="ab", answer="cd"),), 0.1)
    text = Benchmark("t", "next_token", (Item(text="abcdefgh"),), 0.1)
    assert TOKENIZER.decode(opening(TOKENIZER, asked, 0)) == "ab"
    assert TOKENIZER.decode(opening(TOKENIZER, text, 0)) == "abcd"


def test_the_answer_loss_is_the_mean_of_the_items_losses() -> None:
    model, forwards = tiny_llama(), Forwards()
    benchmark = Benchmark("c", "exact", tuple(Item(prompt=p, answer="cde") for p in PROMPTS), 0.1)
    with torch.no_grad():
        each = answer_losses(model, TOKENIZER, benchmark, range(4), forwards)
        assert float(each.mean()) == pytest.approx(float(answer_loss(model, TOKENIZER, benchmark, range(4))))
    assert each.shape == (4,)
    assert forwards.rows == 4
