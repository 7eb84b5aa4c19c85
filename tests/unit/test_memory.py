"""Where the device's memory runs out, fewer rows are tried at a time, and the numbers stay the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language import tiny_llama, tiny_tokenizer

from tasks.measurements.benchmark import Benchmark, Item, answer_loss, losses_together, score_items
from tasks.measurements.input_sensitivity import input_sensitivity
from tasks.measurements.language import Forwards
from tasks.measurements.memory import fitting, until_it_fits
from tasks.measurements.refusal import prompt_states
from tasks.measurements.rollouts import Question, greedy_rollouts, sampled_rollouts

TOKENIZER = tiny_tokenizer()
WORDS = ("one", "two 2", "three", "a", "five five", "six.", "seven", "8")
BENCHMARKS = (
    Benchmark("exact", "exact", tuple(Item(prompt=f"{w}?", answer=w) for w in WORDS), 0.1),
    Benchmark("choice", "choice", tuple(Item(prompt=w, choices=("yes", "no", "or"), label=1) for w in WORDS), 0.1),
    Benchmark("next", "next_token", tuple(Item(text=f"{w} and {w}") for w in WORDS), 0.1),
)


@contextmanager
def memory_for(model: Any, rows: int, *, backward: bool = False) -> Iterator[list[int]]:
    """A device on which a pass over more rows than these runs out; yields the rows of each pass that was tried."""
    tried: list[int] = []

    def run_out(_module: Any, _given: Any, kwargs: dict[str, Any]) -> None:
        tried.append(kwargs["input_ids"].shape[0])
        if tried[-1] > rows and not backward:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def run_out_later(_module: Any, _given: Any, out: Any) -> None:
        if backward and out.logits.requires_grad and out.logits.shape[0] > rows:
            out.logits.register_hook(_no_room)

    handles = [
        model.register_forward_pre_hook(run_out, with_kwargs=True),
        model.register_forward_hook(run_out_later),
    ]
    try:
        yield tried
    finally:
        for handle in handles:
            handle.remove()


def _no_room(_slope: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
@pytest.mark.parametrize("room", [1, 3])
def test_scores_are_those_of_small_batches(benchmark: Benchmark, room: int) -> None:
    model, forwards = tiny_llama(), Forwards()
    expected = score_items(model, TOKENIZER, benchmark, range(8), batch=1)
    with memory_for(model, room) as tried:
        found = score_items(model, TOKENIZER, benchmark, range(8), 8, forwards)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert max(tried) == 8
    assert forwards.most is not None
    assert forwards.most <= room


def test_what_did_not_fit_once_is_not_tried_again() -> None:
    model, forwards = tiny_llama(), Forwards()
    with memory_for(model, 3) as tried:
        score_items(model, TOKENIZER, BENCHMARKS[2], range(8), 8, forwards)
        first = len(tried)
        score_items(model, TOKENIZER, BENCHMARKS[2], range(8), 8, forwards)
    assert tried[:2] == [8, 4]
    assert max(tried[first:]) == forwards.most == 2


def test_written_answers_are_those_of_small_batches() -> None:
    model = tiny_llama()
    asked = [Question(i, tuple(TOKENIZER(w)["input_ids"]), None) for i, w in enumerate(WORDS)]
    expected = greedy_rollouts(model, TOKENIZER, asked, 6), sampled_rollouts(model, TOKENIZER, asked, 6, seed=1)
    with memory_for(model, 2):
        found = (
            greedy_rollouts(model, TOKENIZER, asked, 6, Forwards()),
            sampled_rollouts(model, TOKENIZER, asked, 6, 1, Forwards()),
        )
    for mine, theirs in zip(found, expected, strict=True):
        assert [r.tokens for r in mine] == [r.tokens for r in theirs]
        assert [r.log_probability for r in mine] == pytest.approx([r.log_probability for r in theirs], abs=1e-5)


def test_states_are_those_of_small_batches() -> None:
    model = tiny_llama()
    expected = prompt_states(model, TOKENIZER, BENCHMARKS[0], range(8), frozenset({3}))
    with memory_for(model, 2):
        found = prompt_states(model, TOKENIZER, BENCHMARKS[0], range(8), frozenset({3}), 8, Forwards())
    np.testing.assert_allclose(found.hidden, expected.hidden, atol=1e-5)
    np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=1e-5)


def slopes(model: Any, forwards: Forwards | None) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    answer_loss(model, TOKENIZER, BENCHMARKS[0], range(8), forwards).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_gradients_are_those_of_one_pass(backward: bool) -> None:
    model, forwards = tiny_llama(), Forwards()
    expected = slopes(model, None)
    with memory_for(model, 2, backward=backward) as tried:
        found = until_it_fits(lambda: slopes(model, forwards), forwards, 8)
    assert expected.keys() == found.keys()
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-4, atol=1e-6)
    assert tried[-1] <= 2


def test_the_search_in_the_input_takes_items_apart_and_finds_the_same() -> None:
    model, forwards = tiny_llama(), Forwards()

    def searched(items: Sequence[int]) -> np.ndarray:
        def losses() -> torch.Tensor:
            return losses_together(model, TOKENIZER, BENCHMARKS[0], items, forwards)

        return input_sensitivity(model, losses, radius=0.1, steps=2)

    expected = searched(range(8))
    with memory_for(model, 4):
        found = np.concatenate(list(fitting(range(8), searched, forwards)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert forwards.most == 4


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    model, forwards = tiny_llama(), Forwards()
    with memory_for(model, 0), pytest.raises(torch.OutOfMemoryError):
        until_it_fits(lambda: score_items(model, TOKENIZER, BENCHMARKS[0], range(8), 8, forwards), forwards, 8)
    assert forwards.most == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def work(_rows: Sequence[int]) -> int:
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="assert"):
        list(fitting(range(8), work, Forwards()))
