"""Tasks of EleutherAI's lm-evaluation-harness as capabilities: its prompts and its scoring, this bench's model.

Needs ``basin-gate[lm-eval]``. A task's requests are built once per process and answered anew by each perturbed model. The
score of an item is the task's own metric of one document, so that candidate and base are compared item by item.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gate.domain.errors import NotMeasurable
from tasks.measurements.benchmark import Item
from tasks.measurements.language import Encoded, Forwards, encode, target_logits, window
from tasks.measurements.memory import fitting
from tasks.measurements.rollouts import Question, greedy_texts

ASKED_TOKENS = 256
"""Tokens of an answer where its task names no limit: the harness's own number."""
Told = tuple[float, bool]
"""The log-likelihood of a text in nats, and whether greedy decoding would have written it."""


class BenchLM(LM):
    """The harness's language model over the bench's: whatever weights it has when it is asked."""

    def __init__(self, model: Any, tokenizer: Any, batch: int, chat: bool, forwards: Forwards | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer, self.batch, self.chat, self.forwards = model, tokenizer, batch, chat, forwards

    def loglikelihood(self, requests: Sequence[Instance]) -> list[Told]:
        """How likely each continuation is. Blanks at a context's end count to what follows, as the harness has it."""
        rows = []
        for context, continuation in (request.args for request in requests):
            given = context.rstrip()
            rows.append(encode(self.tokenizer, given, context[len(given) :] + continuation, self.chat))
        return list(self._told(rows))

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """How likely each text is as a whole, in windows where it is longer than the model's."""
        return [sum(value for value, _ in self._told(self._windows(request.args[0]))) for request in requests]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Greedy answers, each up to the first of its stops."""
        asked = [(self._question(request), _most_tokens(request)) for request in requests]
        answers = [""] * len(asked)
        for most in sorted({tokens for _, tokens in asked}):
            places = [place for place, (_, tokens) in enumerate(asked) if tokens == most]
            for part in (places[first : first + self.batch] for first in range(0, len(places), self.batch)):
                questions = [asked[place][0] for place in part]
                texts = greedy_texts(self.model, self.tokenizer, questions, most, self.forwards)
                for place, question, text in zip(part, questions, texts, strict=True):
                    answers[place] = _up_to(text, question.stops)
        return answers

    def _question(self, request: Instance) -> Question:
        context, settings = request.args
        until = settings.get("until") or []
        stops = (until,) if isinstance(until, str) else tuple(stop for stop in until if stop)
        # What follows does not matter to what is asked; encode wants some.
        return Question(0, encode(self.tokenizer, context, "\n", self.chat).prompt, None, stops)

    def _windows(self, text: str) -> list[Encoded]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, 0)
        start = next(token for token in known if token is not None)
        # One less than the window: the bench also feeds the last token that is guessed.
        windows = get_rolling_token_windows(ids, start, window(self.model) - 1, 1)
        return [Encoded(tuple(given), tuple(told)) for given, told in map(make_disjoint_window, windows)]

    def _told(self, rows: Sequence[Encoded]) -> Iterator[Told]:
        self.model.eval()
        with torch.inference_mode():
            for first in range(0, len(rows), self.batch):
                for told in fitting(rows[first : first + self.batch], self._together, self.forwards):
                    yield from told

    def _together(self, rows: Sequence[Encoded]) -> list[Told]:
        found = []
        for row, logits_TV in zip(rows, target_logits(self.model, self.tokenizer, rows, self.forwards), strict=True):
            targets_T = torch.tensor(row.answer, device=logits_TV.device)
            losses_T = torch.nn.functional.cross_entropy(logits_TV.float(), targets_T, reduction="none")
            found.append((-float(losses_T.sum()), bool((logits_TV.argmax(dim=-1) == targets_T).all())))
        return found


class HarnessTask:
    """A task with its requests, built once. ``digest`` covers them and the harness's version."""

    def __init__(self, task: Any, first: int | None, metric: str) -> None:
        self.task = task
        name, _, chosen = (metric or str(next(iter(task._metric_fn_list), ""))).partition(",")
        filters = {each.name: each for each in task._filters}
        _require(not chosen or chosen in filters, task, f"one of the filters {sorted(filters)}", repr(chosen))
        self.metric, self.filter = name, filters[chosen or next(iter(filters))]
        task.build_all_requests(limit=first)
        by_document: dict[int, list[Instance]] = {}
        for request in task.instances:
            by_document.setdefault(request.doc_id, []).append(request)
        self.documents = list(by_document.values())
        self.items = tuple(_item(task, place, requests) for place, requests in enumerate(self.documents))
        self.digest = hashlib.sha256(json.dumps(list(self._covered()), default=str).encode()).hexdigest()

    def score(
        self, model: Any, tokenizer: Any, items: Sequence[Item], batch: int, chat: bool, forwards: Forwards | None
    ) -> list[float]:
        """The metric of each item's document, for whatever weights the model has; 0 where one is not finite."""
        lm = BenchLM(model, tokenizer, batch, chat, forwards)
        requests = [request for item in items for request in self.documents[item.document]]
        answers = getattr(lm, requests[0].request_type)(requests)
        answered = [replace(r, resps=[a], filtered_resps={}) for r, a in zip(requests, answers, strict=True)]
        self.filter.apply(answered)
        by_document: dict[int, list[Instance]] = {}
        for request in answered:
            by_document.setdefault(request.doc_id, []).append(request)
        return [self._value(by_document[self.documents[item.document][0].doc_id]) for item in items]

    def _value(self, answered: Sequence[Instance]) -> float:
        # NaN has a place in every comparison of likelihoods, and could so be the right one.
        if not all(_finite(response) for request in answered for response in request.resps):
            return 0.0
        results = [request.filtered_resps[self.filter.name] for request in answered]
        found = self.task.process_results(answered[0].doc, results)
        value = found.get(self.metric)
        _require(
            isinstance(value, int | float) and 0 <= value <= 1,
            self.task,
            "a metric that gives each document a score from 0 to 1",
            f"{self.metric}, of {sorted(found)}",
        )
        return float(value)

    def _covered(self) -> Iterator[Any]:
        yield [lm_eval.__version__, self.task.config.task, self.metric, self.filter.name]
        for requests in self.documents:
            yield [[r.request_type, r.arguments, r.idx] for r in requests], requests[0].doc


def load_task(name: str, folder: Path | None, first: int | None, metric: str) -> HarnessTask:
    """The harness's task of that name, or the one of a folder of its YAML files; its first documents, or all.

    Raises `NotMeasurable` where it cannot be had (its data are of a hub, as a rule), runs code, or has no score of an item.
    """
    files = sorted(folder.rglob("*")) if folder else []
    content = [(str(f), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files if f.is_file()]
    return _load(name, folder, tuple(content), first, metric)


@lru_cache(maxsize=32)
def _load(
    name: str, folder: Path | None, _content: tuple[tuple[str, str], ...], first: int | None, metric: str
) -> HarnessTask:
    """``_content`` has it loaded again once the folder was changed."""
    try:
        found = TaskManager(include_path=folder, include_defaults=folder is None).load([name])["tasks"]
    except Exception as error:
        raise NotMeasurable(
            f"not measurable: expected the task lm_eval:{name}, found {type(error).__name__}: {str(error)[:300]}; "
            "correct its name, or make its data available on this machine"
        ) from error
    if len(found) != 1:
        raise NotMeasurable(
            f"not measurable: expected lm_eval:{name} to be one task, found {sorted(found)[:5]}; name each as a capability"
        )
    (task,) = found.values()
    _require(not getattr(task, "UNSAFE_CODE", False), task, "a task that runs no code", "one that does (unsafe_code)")
    _require(not getattr(task, "MULTIMODAL", False), task, "a task of text", "one with images or sounds")
    return HarnessTask(task, first, metric)


def _require(held: bool, task: Any, expected: str, found: str) -> None:
    if not held:
        raise NotMeasurable(
            f"not measurable: lm_eval:{task.config.task}: expected {expected}, found {found}; choose another task or metric"
        )


def _item(task: Any, place: int, requests: Sequence[Instance]) -> Item:
    """A document as an item: its right continuation, by which losses are measured."""
    doc, right = requests[0].doc, requests[0]
    kind = right.request_type
    _require(kind in ("loglikelihood", "generate_until"), task, "a score of each document", f"requests of {kind}")
    if kind == "generate_until":
        _check_greedy(task, right)
        target = task.doc_to_target(doc)
        answer = target if isinstance(target, str) else str(target[0] if isinstance(target, list) else target)
        return Item(prompt=right.args[0], answer=f"{task.config.target_delimiter}{answer}", document=place)
    if len(requests) > 1:
        right = requests[_gold(task, doc)]
    return Item(prompt=right.args[0], answer=right.args[1], document=place)


def _gold(task: Any, doc: Any) -> int:
    """The place of the right choice."""
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    gold = gold[0] if isinstance(gold, list) else gold
    choices = task.doc_to_choice(doc)
    place = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
    _require(isinstance(place, int) and 0 <= place < len(choices), task, "the right one of the choices", repr(gold))
    return int(place)


def _check_greedy(task: Any, request: Instance) -> None:
    settings = request.args[1]
    drawn = settings.get("do_sample", False) or settings.get("temperature", 0) or (task.config.repeats or 1) > 1
    _require(not drawn, task, "greedy answers, one of each document", "sampled ones")


def _most_tokens(request: Instance) -> int:
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    return int(next((request.args[1][name] for name in names if name in request.args[1]), ASKED_TOKENS))


def _up_to(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text


def _finite(response: Any) -> bool:
    return not isinstance(response, tuple) or math.isfinite(response[0])
