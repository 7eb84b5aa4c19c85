"""Tasks of the lm-evaluation-harness on the bench's model, against the harness's own model; only where it is installed."""

import json
from pathlib import Path

import pytest
import torch
from tiny_language import tiny_llama, tiny_tokenizer

from gate.domain.errors import InvalidInput, NotMeasurable

pytest.importorskip("lm_eval", reason="needs basin-gate[lm-eval]")
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tasks.harness import BenchLM, load_task
from tasks.measurements.benchmark import answer_loss, score_items
from tasks.suites import load_suite

MODEL, TOKENIZER = tiny_llama(1), tiny_tokenizer()
WORDS = ("house", "door", "open", "sum", "list", "dog", "cat", "nine", "apple", "tree", "stone", "river")
CHOOSING = """
task: choosing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choosing.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: label
doc_to_choice: choices
metric_list:
  - {{metric: acc}}
  - {{metric: acc_norm}}
"""
WRITING = """
task: writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/writing.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs: {{until: ["."], max_gen_toks: 8, do_sample: {sampled}}}
metric_list:
  - {{metric: exact_match}}
filter_list:
  - {{name: whole, filter: [{{function: take_first}}]}}
  - {{name: first-letter, filter: [{{function: regex, regex_pattern: "([a-z])"}}, {{function: take_first}}]}}
"""
SUITE = """
name: mine
lm_eval_tasks: tasks
capabilities:
  - {name: choosing, scorer: lm_eval, items: "lm_eval:choosing", margin: 0.1, first: 8, metric: acc_norm}
  - {name: writing, scorer: lm_eval, items: "lm_eval:writing", margin: 0.1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite with two tasks over local files; every second written answer is what the model really writes."""
    made = tmp_path_factory.mktemp("suite")
    tasks = made / "tasks"
    tasks.mkdir()
    questions = [f"which word is {word}? " for word in WORDS]
    written = peer().generate_until([ask(q, {"until": ["."], "max_gen_toks": 8}) for q in questions])
    write(made / "choosing.jsonl", [choice(n, q) for n, q in enumerate(questions)])
    right = [
        {"question": q, "answer": w if n % 2 else "x" * 9}
        for n, (q, w) in enumerate(zip(questions, written, strict=True))
    ]
    write(made / "writing.jsonl", right)
    (tasks / "choosing.yaml").write_text(CHOOSING.format(folder=made))
    (tasks / "writing.yaml").write_text(WRITING.format(folder=made, sampled="false"))
    (made / "suite.yaml").write_text(SUITE)
    return made


def write(path: Path, documents: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))


def choice(place: int, question: str) -> dict[str, object]:
    return {"question": question, "choices": [WORDS[(place + step) % 12] for step in (0, 3, 7)], "label": place % 3}


def peer(model: torch.nn.Module = MODEL) -> HFLM:
    """The harness's own way with the same model."""
    return HFLM(pretrained=model, tokenizer=TOKENIZER, device="cpu", batch_size=1, max_length=95)


def ask(*arguments: object, kind: str = "generate_until") -> Instance:
    return Instance(kind, {}, arguments, 0, ("asked", 0, 1))


def ours(batch: int = 4) -> BenchLM:
    return BenchLM(MODEL, TOKENIZER, batch, chat=False)


def test_likelihoods_are_those_of_the_harness() -> None:
    asked = [ask(f"the {word} is ", other, kind="loglikelihood") for word in WORDS for other in (" open", "dog", "a")]
    found, wanted = ours().loglikelihood(asked), peer().loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], rel=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_a_text_longer_than_the_window_is_read_in_the_same_windows() -> None:
    texts = ["a short one", "the dog and the cat " * 10, "nine stones by the river " * 20]
    asked = [ask(text, kind="loglikelihood_rolling") for text in texts]
    assert ours().loglikelihood_rolling(asked) == pytest.approx(peer().loglikelihood_rolling(asked), rel=1e-4)


def test_answers_are_those_of_the_harness_whatever_the_batch() -> None:
    settings = [{"until": ["."], "max_gen_toks": 6}, {"until": ["e", "\n"], "max_gen_toks": 12}, {"max_gen_toks": 3}]
    asked = [ask(f"the {word} ", each) for word in WORDS for each in settings]
    wanted = peer().generate_until(
        [ask(*r.args[:1], dict(r.args[1], until=list(r.args[1].get("until", [])))) for r in asked]
    )
    assert ours().generate_until(asked) == wanted
    assert ours(batch=1).generate_until(asked) == wanted


def test_a_task_becomes_a_capability_with_the_harness_s_own_scores(folder: Path) -> None:
    suite = load_suite(folder)
    choosing, writing = suite.benchmarks
    assert (len(choosing.items), len(writing.items)) == (8, 12)
    found = score_items(MODEL, TOKENIZER, writing, range(12), batch=5).tolist()
    assert found == [0.0, 1.0] * 6
    assert score_items(MODEL, TOKENIZER, writing, [1, 0, 3]).tolist() == [1.0, 0.0, 1.0]


def test_choices_are_scored_as_the_harness_scores_them(folder: Path) -> None:
    choosing = load_suite(folder).benchmark("choosing")
    right = 0.0
    for seed in range(4):
        model = tiny_llama(seed)
        found = score_items(model, TOKENIZER, choosing, range(8), batch=3).tolist()
        assert found == [by_hand(peer(model), place) for place in range(8)]
        right += sum(found)
    assert 0 < right < 4 * 8


def by_hand(lm: HFLM, place: int) -> float:
    """``acc_norm`` of one document: whether the right choice is the likeliest per character."""
    document = choice(place, f"which word is {WORDS[place]}? ")
    words = document["choices"]
    told = lm.loglikelihood([ask(document["question"], f" {word}", kind="loglikelihood") for word in words])
    values = [value / len(word) for (value, _), word in zip(told, words, strict=True)]
    return float(max(range(3), key=lambda n: values[n]) == document["label"])


def test_another_metric_and_filter_can_be_named(folder: Path) -> None:
    task = load_task("writing", folder / "tasks", None, "exact_match,first-letter")
    assert task.filter.name == "first-letter"
    assert task.score(MODEL, TOKENIZER, task.items, 4, False, None) != [0.0, 1.0] * 6


def test_requests_are_built_once_and_answered_anew_by_each_model(folder: Path) -> None:
    first, again = (load_suite(folder).benchmark("choosing") for _ in range(2))
    assert first.items[0] is again.items[0]
    scores = [score_items(tiny_llama(seed), TOKENIZER, first, range(8)).tolist() for seed in (1, 2, 3, 1)]
    assert scores[0] == scores[3]
    assert len({tuple(each) for each in scores}) > 1


def test_the_loss_is_that_of_the_right_choice(folder: Path) -> None:
    choosing = load_suite(folder).benchmark("choosing")
    item = choosing.items[1]
    assert item.reference == f" {choice(1, '')['choices'][1]}"
    with torch.no_grad():
        loss = float(answer_loss(MODEL, TOKENIZER, choosing, [1]))
    assert loss == pytest.approx(-plain(item.prompt, item.reference) / len(item.reference), rel=1e-5)


@torch.no_grad()
def plain(prompt: str, answer: str) -> float:
    """The log-likelihood of an answer with one token per character, in one unpadded pass."""
    ids = torch.tensor(TOKENIZER(prompt + answer)["input_ids"])
    log_p = torch.log_softmax(MODEL(ids[None]).logits[0].double(), dim=-1)
    return sum(float(log_p[t - 1, ids[t]]) for t in range(len(ids) - len(answer), len(ids)))


def test_a_non_finite_model_scores_zero(folder: Path) -> None:
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    assert score_items(model, TOKENIZER, load_suite(folder).benchmark("choosing"), range(8)).tolist() == [0.0] * 8


def test_the_digest_covers_the_requests(folder: Path) -> None:
    task = folder / "tasks" / "writing.yaml"
    before, text = load_suite(folder).digest, task.read_text()
    try:
        task.write_text(text.replace('"{{question}}"', '"please: {{question}}"'))
        assert load_suite(folder).digest != before
    finally:
        task.write_text(text)
    assert load_suite(folder).digest == before


@pytest.mark.parametrize(
    ("name", "changed", "metric", "message"),
    [
        ("nothing", ("", ""), "", "expected the task lm_eval:nothing, found"),
        ("writing", ("do_sample: false", "do_sample: true"), "", "expected greedy answers, .* found sampled ones"),
        ("writing", ("task: writing", "task: writing\nunsafe_code: true"), "", "expected a task that runs no code"),
        ("writing", ("", ""), "exact_match,other", "one of the filters .*first-letter.*, found 'other'"),
    ],
    ids=["unknown", "sampled", "code", "filter"],
)
def test_a_task_that_cannot_be_a_capability_is_refused(
    folder: Path, tmp_path: Path, name: str, changed: tuple[str, str], metric: str, message: str
) -> None:
    (tmp_path / "writing.yaml").write_text((folder / "tasks" / "writing.yaml").read_text().replace(*changed))
    with pytest.raises(NotMeasurable, match=f"not measurable: .*{message}"):
        load_task(name, tmp_path, None, metric)


def test_a_metric_that_no_document_has_is_refused(folder: Path) -> None:
    task = load_task("writing", folder / "tasks", 2, "bleu")
    with pytest.raises(NotMeasurable, match=r"score from 0 to 1, found bleu, of \['exact_match'\]"):
        task.score(MODEL, TOKENIZER, task.items, 2, False, None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (('"lm_eval:choosing"', "choosing.jsonl"), "expected scorer lm_eval with items lm_eval:TASK"),
        (
            ('scorer: lm_eval, items: "lm_eval:choosing"', "scorer: exact, items: choosing.jsonl"),
            "first and metric with",
        ),
        (("first: 8", "hidden: x, hidden_items: 1"), "everybody knows"),
        (("lm_eval_tasks: tasks", "lm_eval_tasks: ../"), "inside the suite's folder"),
    ],
    ids=["a file", "another scorer", "hidden", "outside"],
)
def test_a_head_that_mixes_up_files_and_tasks_is_refused(
    folder: Path, tmp_path: Path, changed: tuple[str, str], message: str
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace(*changed))
    with pytest.raises(InvalidInput, match=message):
        load_suite(tmp_path)
