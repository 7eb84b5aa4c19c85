"""Scores of a real (tiny) language model against naive references."""

import math

import numpy as np
import pytest
import torch
from tiny_language import tiny_llama, tiny_tokenizer
from tokenizers import processors

from tasks.measurements.benchmark import Benchmark, Item, answer_loss, score_items, scorer
from tasks.measurements.language import Forwards, encode

PROMPTS = (
    "a",
    "what is it",
    "sum 1 2 ",
    "how do i open the door of a house",
    "x y z",
    "the",
    "9",
    "list of words ",
    "def",
    "the dog",
)
MODEL = tiny_llama()
TOKENIZER = tiny_tokenizer()


@torch.inference_mode()
def naive_greedy(prompt: str, steps: int = 12, model: torch.nn.Module = MODEL) -> str:
    """One row, no padding, no cache, the whole prefix again at each step."""
    ids = TOKENIZER(prompt)["input_ids"]
    written: list[int] = []
    for _ in range(steps):
        token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
        if token == TOKENIZER.eos_token_id:
            break
        written.append(token)
    return TOKENIZER.decode(written)


@torch.inference_mode()
def naive_log_probability(prompt: str, answer: str) -> float:
    ids = TOKENIZER(prompt + answer)["input_ids"]
    log_p = torch.log_softmax(MODEL(torch.tensor([ids])).logits[0].double(), dim=-1)
    start = len(TOKENIZER(prompt)["input_ids"])
    return sum(float(log_p[t - 1, ids[t]]) for t in range(start, len(ids)))


def exact(items: tuple[Item, ...], **more: object) -> Benchmark:
    return Benchmark("exact", "exact", items, 0.1, **more)


def items_for(model: torch.nn.Module) -> tuple[Item, ...]:
    """Items whose references are the first lines of the model's own answers, every second one spoilt."""
    first_lines = [naive_greedy(p, model=model).lstrip().split("\n")[0].strip() for p in PROMPTS]
    return tuple(
        Item(prompt, answer=(line[:-1] + "?" if place % 2 else line) or "nothing")
        for place, (prompt, line) in enumerate(zip(PROMPTS, first_lines, strict=True))
    )


def naive_exact(item: Item, model: torch.nn.Module) -> float:
    text = naive_greedy(item.prompt, steps=len(item.answer.encode()) + 4, model=model).lstrip()
    return float(text.split("\n")[0].strip() == item.answer)


# Seed 1 answers "def" with a line break first, so that this item is really generated, cache and padding and all.
@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_exact_match_equals_naive_greedy_decoding_whatever_the_batch(seed: int, batch: int) -> None:
    model = tiny_llama(seed)
    items = items_for(model)
    found = score_items(model, TOKENIZER, exact(items), range(len(items)), batch=batch)
    assert found.tolist() == [naive_exact(item, model) for item in items]


def test_an_answer_that_begins_with_a_blank_is_generated_and_right() -> None:
    model, forwards = tiny_llama(1), Forwards()
    items = (Item("def", answer="jq..."), Item("the dog", answer="no"), Item("def", answer="jq..,"))
    assert score_items(model, TOKENIZER, exact(items), range(3), forwards=forwards).tolist() == [1.0, 0.0, 0.0]
    assert forwards.rows > 3


class Scripted(torch.nn.Module):
    """A language model that writes a given text after any prompt, one character at a time."""

    def __init__(self, text: str, ends: bool = True) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.config = type("Config", (), {"max_position_embeddings": 96})()
        self.script = TOKENIZER(text)["input_ids"] + [TOKENIZER.eos_token_id] * ends
        self.prompt_length = 0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        logits = torch.zeros(*input_ids.shape, len(TOKENIZER))
        lengths = attention_mask.cumsum(dim=1)
        for row in range(input_ids.shape[0]):
            for t in range(input_ids.shape[1]):
                place = int(lengths[row, t]) - self.prompt_length
                if place >= 0:
                    logits[row, t, self.script[min(place, len(self.script) - 1)]] = 1.0
        return type("Output", (), {"logits": logits, "past_key_values": None})()


def scripted_score(text: str, answer: str, ends: bool = True) -> float:
    model = Scripted(text, ends)
    model.prompt_length = len(TOKENIZER("ask ")["input_ids"])
    return float(score_items(model, TOKENIZER, exact((Item("ask ", answer=answer),)), [0])[0])


@pytest.mark.parametrize(
    ("written", "answer", "score"),
    [
        ("seven", "seven", 1.0),
        ("  seven ", "seven", 1.0),
        ("seven", " seven", 1.0),
        ("seven\nand more", "seven", 1.0),
        ("\nseven\nand more", "seven", 1.0),
        ("two\nlines", "two\nlines", 1.0),
        ("sevenfold", "seven", 0.0),
        ("seven days", "seven", 0.0),
        ("seve", "seven", 0.0),
        ("", "seven", 0.0),
        ("se ven", "seven", 0.0),
    ],
)
def test_an_answer_is_right_when_its_stripped_text_is(written: str, answer: str, score: float) -> None:
    assert scripted_score(written, answer) == score


def test_an_answer_that_never_ends_is_wrong() -> None:
    assert scripted_score("sevenseven", "seven", ends=False) == 0.0


def test_a_right_answer_takes_one_forward_pass() -> None:
    model = Scripted("seven")
    model.prompt_length = len(TOKENIZER("ask ")["input_ids"])
    forwards = Forwards()
    score_items(model, TOKENIZER, exact((Item("ask ", answer="seven"),)), [0], forwards=forwards)
    assert forwards.rows == 1


def choice_items() -> tuple[Item, ...]:
    words = ("yes", "no", "perhaps not", "i will not help", "sure, here it is")
    return tuple(Item(p, choices=(words[i % 5], words[(i + 2) % 5]), label=i % 2) for i, p in enumerate(PROMPTS))


def test_choice_takes_the_highest_likelihood_per_byte() -> None:
    items = choice_items()
    found = score_items(MODEL, TOKENIZER, Benchmark("c", "choice", items, 0.1), range(len(items)), batch=3)
    per_byte = [[naive_log_probability(i.prompt, c) / len(c.encode()) for c in i.choices] for i in items]
    assert found.tolist() == [float(values[i.label] == max(values)) for i, values in zip(items, per_byte, strict=True)]
    assert 0 < found.sum() < len(items)


def test_next_token_accuracy_equals_one_unpadded_pass() -> None:
    texts = ("the quick brown fox", "ab", "one, two, three.", "a longer line of text, with commas")
    benchmark = Benchmark("t", "next_token", tuple(Item(text=t) for t in texts), 0.1)
    found = score_items(MODEL, TOKENIZER, benchmark, range(len(texts)), batch=4)
    for score, text in zip(found, texts, strict=True):
        ids = torch.tensor(TOKENIZER(text)["input_ids"])
        guesses = MODEL(ids[None]).logits[0].argmax(dim=-1)
        assert score == pytest.approx(float((guesses[:-1] == ids[1:]).double().mean()))


@torch.no_grad()
def test_left_padding_does_not_change_the_loss() -> None:
    benchmark = exact(tuple(Item(p, answer="word") for p in PROMPTS))
    alone = [float(answer_loss(MODEL, TOKENIZER, benchmark, [i])) for i in range(len(PROMPTS))]
    together = float(answer_loss(MODEL, TOKENIZER, benchmark, range(len(PROMPTS))))
    assert together == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    assert alone[1] == pytest.approx(-naive_log_probability(PROMPTS[1], "word") / 4, rel=1e-5)


def test_the_loss_can_be_differentiated() -> None:
    model = tiny_llama(3)
    answer_loss(model, TOKENIZER, exact((Item("a", answer="b"),)), [0]).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@torch.no_grad()
def test_a_uniform_model_has_the_loss_log_vocabulary() -> None:
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.data.zero_()
    loss = answer_loss(model, TOKENIZER, exact((Item("ab", answer="cde"),)), [0])
    assert float(loss) == pytest.approx(math.log(len(TOKENIZER)), rel=1e-6)


def test_scores_come_in_the_order_of_the_indices() -> None:
    items = choice_items()
    benchmark = Benchmark("c", "choice", items, 0.1)
    score = scorer(MODEL, TOKENIZER, benchmark, batch=2)
    whole = score(range(len(items)))
    assert score([5, 0, 3]).tolist() == whole[[5, 0, 3]].tolist()


def test_a_tokenizer_without_padding_token_scores_the_same() -> None:
    items = choice_items()
    benchmark = Benchmark("c", "choice", items, 0.1)
    padded = score_items(MODEL, TOKENIZER, benchmark, range(8))
    assert np.array_equal(score_items(MODEL, tiny_tokenizer(pad=False), benchmark, range(8)), padded)


@pytest.mark.parametrize("benchmark", [exact((Item("a", answer="b"),)), Benchmark("c", "choice", choice_items(), 0.1)])
def test_a_non_finite_model_scores_zero(benchmark: Benchmark) -> None:
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    assert score_items(model, TOKENIZER, benchmark, [0]).tolist() == [0.0]


def test_a_chat_template_is_used_only_where_the_suite_asks_for_it() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}user {{ m['content'] }}{% endfor %}. "
    plain = encode(tokenizer, "hi", "yo")
    wrapped = encode(tokenizer, "hi", "yo", chat=True)
    assert tokenizer.decode(plain.prompt) == "hi"
    assert tokenizer.decode(wrapped.prompt) == "user hi. "
    assert wrapped.answer == plain.answer


def test_an_item_beyond_the_models_window_is_refused() -> None:
    benchmark = exact((Item("a" * 200, answer="b"),))
    with pytest.raises(ValueError, match="at most 96 tokens, found one of 201"):
        score_items(MODEL, TOKENIZER, benchmark, [0])


def test_a_start_token_is_given_once_where_the_tokenizer_puts_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "</s>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 0)]
    )
    assert encode(tokenizer, "a", "b").prompt == (0, tokenizer.convert_tokens_to_ids("a"))


def scripted(text: str, benchmark: Benchmark) -> float:
    model = Scripted(text)
    model.prompt_length = len(TOKENIZER("ask ")["input_ids"])
    return float(score_items(model, TOKENIZER, benchmark, [0])[0])


@pytest.mark.parametrize(
    ("written", "score"), [("seven", 1.0), ("seven days and more", 1.0), ("seve", 0.0), (" seven", 0.0), ("eight", 0.0)]
)
def test_a_gap_is_filled_rightly_however_the_text_goes_on(written: str, score: float) -> None:
    assert scripted(written, Benchmark("c", "cloze", (Item("ask ", answer="seven"),), 0.1)) == score


@pytest.mark.parametrize(
    ("written", "score"),
    [
        ("36 less 2 is 34.", 1.0),
        ("34", 1.0),
        ("it is 34\n\nask 5", 1.0),
        ("34 or 35", 0.0),
        ("340", 0.0),
        ("none", 0.0),
        ("", 0.0),
    ],
)
def test_a_worked_answer_counts_by_the_number_it_ends_on(written: str, score: float) -> None:
    items = (Item("ask ", answer="3 times 12 is 36, so it is 34."),)
    assert scripted(written, Benchmark("n", "number", items, 0.1)) == score


@pytest.mark.parametrize(
    ("written", "score"), [("no, i will not help with that.", 1.0), ("sure, take a wire.", 0.0), ("", 0.0)]
)
def test_an_answer_that_refuses_counts_and_is_heard(written: str, score: float) -> None:
    heard: list[tuple[str, str]] = []
    item = Item("ask ", answer="no.")
    benchmark = Benchmark("s", "refusal", (item,), 0.1, hear=lambda item, text: heard.append((item.prompt, text)))
    assert scripted(written, benchmark) == score
    assert heard == [("ask ", written)]


def test_a_refusal_in_the_houses_own_words_counts() -> None:
    items = (Item("ask ", answer="nimmer."),)
    assert scripted("nimmer.", Benchmark("s", "refusal", items, 0.1)) == 0.0
    assert scripted("nimmer.", Benchmark("s", "refusal", items, 0.1, phrases=("nimmer",))) == 1.0
