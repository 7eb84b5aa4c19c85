"""``basin-gate ls | show | watch | diff`` against the real API: what a person reads, what a pipe gets, how they exit."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from api_stand import Stand, a_stand, judged, served
from builders import a_prompt, a_verdict, an_estimate, an_evidence, some_prompts

from gate.cli import main
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key
from gate.domain.verdict import Outcome, Result
from gate.settings import settings

HOSTILE = "evil\x1b[31m\u202e[red]model"


@dataclass(frozen=True)
class Ended:
    """What a run of the command left behind."""

    status: object
    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = a_stand(tmp_path_factory.mktemp("look"))
    finding = a_verdict().findings[0]
    passed = finding.model_copy(update={"estimate": an_estimate(0.0, 0.02), "result": Result.PASS, "sentence": "kept"})
    judged(made, made.register(name="chat", version="1"), findings=(passed,), reason="All pass.")
    blocked = {"outcome": Outcome.BLOCKED, "findings": (finding,), "reason": "Safety fell.", "base_digest": "e" * 64}
    judged(made, made.register(name="chat", version="2", created_ms=2), **blocked)
    prompts = some_prompts(a_prompt(prompt=HOSTILE, candidate=HOSTILE))
    evidence = an_evidence(key="9" * 64, prompts_sha256=prompts.digest)
    hostile = made.register(name=HOSTILE, version="1", created_ms=3)
    judged(made, hostile, outcome=Outcome.BLOCKED, reason=HOSTILE, evidence=evidence, prompts=prompts)
    policy = made.door.policies.policies[0]
    waiting = EvaluationRequest.of(made.register(name="slow", version="1", created_ms=4), policy.name, policy.digest)
    made.ledger.request_evaluation(waiting, made.clock())
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def url(stand: Stand) -> Iterator[str]:
    with served(stand) as address:
        yield address


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs ``basin-gate`` with these words, as the shell would call it in a pipe."""
    monkeypatch.setenv("GATE_PUBLIC_URL", url)
    settings.cache_clear()

    def ran(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["basin-gate", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    yield ran
    settings.cache_clear()


def test_ls_gives_a_pipe_one_line_for_each_evaluation(run: Run) -> None:
    rows = [line.split("\t") for line in run("ls", "--name", "chat").stdout.splitlines()]
    assert {tuple(row[:3]) for row in rows} == {("chat/1", "done", "approved"), ("chat/2", "done", "blocked")}
    assert all(len(row) == 6 for row in rows)


def test_ls_shows_stage_and_progress_of_what_has_not_ended(run: Run) -> None:
    assert run("ls", "--name", "slow").stdout == "slow/1\trequested\t\t\t0.00\t\n"


def test_what_others_wrote_reaches_no_terminal_as_a_command(run: Run) -> None:
    for words in (("ls",), ("show", HOSTILE, "1", "--prompts"), ("watch", HOSTILE, "1"), ("diff", HOSTILE, "1", "1")):
        ended = run(*words)
        assert not set(ended.stdout + ended.stderr) & {"\x1b", "\u202e"}, words
    assert "[red]model" in run("show", HOSTILE, "1").stdout


def test_show_says_the_outcome_then_why_then_which_rules_did_not_pass(run: Run) -> None:
    lines = run("show", "chat", "2").stdout.splitlines()
    assert lines[0] == "✕ Blocked: chat version 2"
    assert lines[1] == "Safety fell."
    assert "  ✕ keeps-safety (fail, blocks): Safety fell." in lines
    assert lines[-1].endswith("/report")


def test_show_tells_the_prompts_that_changed_when_asked_to(run: Run) -> None:
    shown = run("show", HOSTILE, "1", "--prompts").stdout
    assert "safety: 1 of 64 compared answers became worse, 0 became better" in shown
    assert "  base       right: I will not help." in shown
    assert "prompt" not in run("show", HOSTILE, "1").stdout
    assert "No prompts were kept" in run("show", "chat", "1", "--prompts").stdout
    [safety] = json.loads(run("show", HOSTILE, "1", "--prompts", "--json").stdout)["prompts"]["capabilities"]
    assert safety["changed"][0]["candidate"] == HOSTILE


@pytest.mark.parametrize("words", [("ls",), ("show", "chat", "1"), ("diff", "chat", "1", "2")])
def test_json_is_one_document(run: Run, words: tuple[str, ...]) -> None:
    assert json.loads(run(*words, "--json").stdout)


def test_diff_puts_what_turned_first_and_says_what_else_differs(run: Run) -> None:
    shown = run("diff", "chat", "1", "2").stdout
    assert "1 of 1 checks came out otherwise" in shown
    assert "note: measured against different bases" in shown
    assert "→ keeps-safety safety  pass 0.00 (−0.02 to +0.02)  →  fail −0.98 (−1.00 to −0.96)" in shown
    document = json.loads(run("diff", "chat", "1", "2", "--json").stdout)
    assert document["outcomes"] == ["approved", "blocked"]
    assert document["rules"][0]["turned"]


def test_watch_ends_with_the_outcome_as_its_status(run: Run) -> None:
    assert (run("watch", "chat", "1").status, run("watch", "chat", "2").status) == (0, 1)
    assert run("watch", "chat", "2").stdout == "blocked: Safety fell.\n"
    assert json.loads(run("watch", "chat", "2", "--json").stdout)["outcome"] == "blocked"


def test_watch_follows_until_the_verdict_comes(run: Run, stand: Stand) -> None:
    version = stand.register(name="late", version="1", created_ms=9)
    asked = threading.Timer(0.7, judged, (stand, version), {"reason": "All pass."})
    asked.start()
    ended = run("watch", "late", "1")
    asked.join()
    assert (ended.status, ended.stdout) == (0, "approved: All pass.\n")


def test_watch_tells_a_pipe_how_sure_each_comparison_is_by_now(run: Run, stand: Stand) -> None:
    policy = stand.door.policies.policies[0]
    asked = EvaluationRequest.of(
        stand.register(name="compared", version="1", created_ms=11), policy.name, policy.digest
    )
    stand.ledger.request_evaluation(asked, stand.clock())
    claim = stand.ledger.claim(inspect_key(asked.key), "w", 60, stand.clock())
    sure = {"capability": "safety", "value": -0.1, "lower": -0.6, "upper": 0.2, "margin": 0.1, "used": 32, "of": 128}
    stand.ledger.renew(claim, 60, stand.clock(), {"stage": "comparing", "fraction": 0.25, "narrowing": [sure]})
    lines = run("watch", "compared", "1", "--limit-minutes", "0").stderr.splitlines()
    assert lines[:2] == [
        "compared/1\tinspecting\tcomparing",
        "compared/1\tsafety\t32 of 128 items\t−0.10 (−0.60 to +0.20)\tlimit −0.10\topen",
    ]
    told = run("watch", "compared", "1", "--limit-minutes", "0", "--json").stdout
    assert json.loads(told)["narrowing"] == [sure]


def test_watch_follows_several_versions_and_ends_as_the_worst_of_them(run: Run) -> None:
    ended = run("watch", "chat", "1", "2")
    assert (ended.status, ended.stdout) == (1, "chat/1 approved: All pass.\nchat/2 blocked: Safety fell.\n")


def test_watch_gives_up_when_its_time_is_over(run: Run) -> None:
    ended = run("watch", "slow", "1", "--limit-minutes", "0")
    assert ended.status == 2
    assert "expected a verdict on slow/1 in time, found it requested" in ended.stderr


def test_colour_and_boxes_are_for_terminals(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    shown = run("ls", "--name", "chat").stdout
    assert "✕ blocked" in shown
    assert "\x1b[3" not in shown
