"""``basin-gate watch``: intervals against their limits, lines for pipes, and a gate that is silent for a while."""

import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console

from gate.client import GateClient
from gate.domain.errors import NotFound, Unavailable
from gate.domain.overview import Narrowing
from gate.look import following, watching
from gate.look.following import Look, Row
from gate.look.live import Board, axis, standing

Watch = Callable[..., int]
SILENT = Unavailable("expected the gate at http://gate, found nothing")


def a_row(version: str = "1", **changes: Any) -> dict[str, Any]:
    row = {"key": f"key-{version}", "name": "chat", "version": version, "state": "measuring", "stage": "comparing"}
    return row | {"progress": 0.5, "outcome": None, "reason": None, "narrowing": []} | changes


def ended(version: str = "1", outcome: str = "approved") -> dict[str, Any]:
    return a_row(version, state="done", stage="", progress=1.0, outcome=outcome, reason=f"It is {outcome}.")


def sure(used: int, value: float, lower: float, upper: float, capability: str = "safety") -> Narrowing:
    return Narrowing(capability, value, lower, upper, 0.1, used, 128)


class ScriptedGate(GateClient):
    """A gate whose answers to ``/v1/evaluations`` come one after another; an error is raised instead."""

    def __init__(self, answers: Sequence[list[Row] | Exception]) -> None:
        super().__init__("http://gate")
        self._answers = iter(answers)
        self._known: list[Row] = []

    def get(self, path: str) -> Any:
        if not path.startswith("/v1/evaluations?"):
            return next(row for row in self._answered() if path.endswith(row["key"]))
        return {"evaluations": self._answered()}

    def _answered(self) -> list[Row]:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Watches a gate that answers so, without waiting between looks; returns the exit status."""
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.0)

    def watched(*answers: list[Row] | Exception, numbers: Sequence[str] = ("1",), **options: Any) -> int:
        gate = ScriptedGate(answers)
        monkeypatch.setattr(GateClient, "of", lambda _settings: gate)
        with pytest.raises(typer.Exit) as left:
            watching.watch("chat", list(numbers), **{"limit_minutes": 60.0, "as_json": False, **options})
        return int(left.value.exit_code)

    return watched


@pytest.mark.parametrize(
    ("found", "side"),
    [
        (sure(8, -0.1, -0.6, 0.2), "open"),
        (sure(64, -0.02, -0.1, 0.05), "clears it"),
        (sure(64, -0.4, -0.6, -0.11), "below it"),
    ],
    ids=["straddles", "above", "below"],
)
def test_an_interval_stands_on_one_side_of_its_limit_or_is_open(found: Narrowing, side: str) -> None:
    assert standing(found) == side


def test_the_bar_of_an_interval_becomes_shorter_while_it_narrows() -> None:
    lengths = [axis(sure(8, 0.0, -width, width)).count("━") for width in (1.0, 0.6, 0.3, 0.15)]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == len(lengths)
    assert len({len(axis(sure(8, 0.0, -width, width))) for width in (3.0, 1.0, 0.2)}) == 1


def drawn(board: Board, look: Look, **options: Any) -> str:
    written = StringIO()
    Console(file=written, width=140, **options).print(board.drawn(look))
    return written.getvalue()


def test_the_board_shows_items_interval_limit_and_bar_of_each_capability_of_each_version() -> None:
    first = a_row("1", narrowing=[asdict(sure(32, -0.1, -0.6, 0.2)), asdict(sure(8, 0.0, -0.9, 0.9, "math"))])
    board = Board(following.Watched("chat", ("1", "2", "3"), 0.0))
    lines = drawn(board, Look({"1": first, "2": ended("2", "blocked")})).splitlines()
    [safety] = [line for line in lines if line.startswith("safety")]
    for shown in ("32 of 128", "−0.10 (−0.60 to +0.20)", " −0.10 ", "━━", "open"):
        assert shown in safety
    assert any(line.startswith("math") and "8 of 128" in line for line in lines)
    assert any("chat/1" in line and "50 %" in line and "measuring: comparing" in line for line in lines)
    assert [line.strip() for line in lines[-2:]] == ["chat/2  ✕ blocked", "chat/3  looked for"]


def test_what_was_compared_stays_on_the_board_when_the_comparison_is_over() -> None:
    board = Board(following.Watched("chat", ("1",), 0.0))
    drawn(board, Look({"1": a_row(narrowing=[asdict(sure(128, 0.0, -0.05, 0.05))])}))
    assert "128 of 128" in drawn(board, Look({"1": a_row(stage="worst direction")}))


def test_the_board_has_no_colour_where_none_is_wanted_and_says_that_the_gate_is_silent() -> None:
    board = Board(following.Watched("chat", ("1",), 0.0))
    look = Look({"1": a_row(narrowing=[asdict(sure(64, -0.4, -0.6, -0.2, "evil\x1b[31m[red]"))])}, "found nothing")
    coloured = drawn(board, look, force_terminal=True, no_color=False, color_system="standard")
    plain = drawn(board, look, force_terminal=True, no_color=True, color_system="standard")
    assert "\x1b[31m" in coloured
    assert "\x1b[3" not in plain
    assert "[31m[red]" in plain
    assert "found nothing; asking again" in plain


def test_a_pipe_gets_a_line_for_each_change_and_the_verdict_alone_on_its_output(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, narrow = (a_row(narrowing=[asdict(each)]) for each in (sure(8, 0, -0.9, 0.9), sure(64, 0, -0.08, 0.1)))
    assert watch([wide], [wide], [narrow], [ended()]) == 0
    told = capsys.readouterr()
    assert told.out == "approved: It is approved.\n"
    assert told.err.splitlines() == [
        "chat/1\tmeasuring\tcomparing",
        "chat/1\tsafety\t8 of 128 items\t0.00 (−0.90 to +0.90)\tlimit −0.10\topen",
        "chat/1\tsafety\t64 of 128 items\t0.00 (−0.08 to +0.10)\tlimit −0.10\tclears it",
    ]


def test_json_is_one_line_for_each_change_with_the_intervals_in_it(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, narrow = (a_row(narrowing=[asdict(each)]) for each in (sure(8, 0, -0.9, 0.9), sure(64, 0, -0.08, 0.1)))
    assert watch([wide], [wide], [narrow], [ended("1", "blocked")], as_json=True) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[each["used"] for each in row["narrowing"]] for row in rows] == [[8], [64], []]
    assert rows[-1]["outcome"] == "blocked"


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (("approved", "approved"), 0),
        (("approved", "needs_review"), 3),
        (("needs_review", "blocked"), 1),
        (("blocked", "error"), 2),
    ],
    ids=["approved", "needs-review", "blocked", "error"],
)
def test_of_several_versions_the_worst_outcome_is_the_status(
    watch: Watch, capsys: pytest.CaptureFixture[str], outcomes: tuple[str, str], status: int
) -> None:
    rows: list[Row] = [ended("2", outcomes[1]), ended("1", outcomes[0])]
    assert watch(rows, numbers=("1", "2", "1")) == status
    subjects = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert subjects == [f"chat/{n} {outcome.replace('_', ' ')}" for n, outcome in zip("12", outcomes, strict=True)]


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
def test_a_gate_that_is_lost_is_asked_again_and_that_is_said_once(
    watch: Watch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    assert watch([a_row()], SILENT, SILENT, SILENT, [ended("1", "needs_review")], as_json=as_json) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basin-gate:")]
    assert said == [f"basin-gate: {SILENT}; asking again", "basin-gate: the gate answers again"]


def test_a_gate_that_never_answered_is_not_waited_for(watch: Watch) -> None:
    with pytest.raises(Unavailable, match="expected the gate at http://gate"):
        watch(SILENT, [ended()])


def test_a_gate_that_stays_silent_until_the_time_is_over_is_named_as_the_cause(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(time.monotonic(), 25.0)
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: next(now), sleep=lambda _s: None))
    with pytest.raises(Unavailable, match=r"found it measuring; watch it again \(at last the gate did not answer"):
        watch([a_row()], *[SILENT] * 100, limit_minutes=5.0)


def test_a_version_that_has_no_evaluation_is_refused_with_a_next_step(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "APPEARS_WITHIN_S", 0.0)
    with pytest.raises(NotFound, match=r"evaluation of version 7, 8 of 'chat', found none.*basin-gate doctor"):
        watch([ended("1")], numbers=("1", "7", "8"))


def test_a_version_that_appears_late_is_waited_for(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch([], [], [a_row()], [ended()]) == 0
    assert capsys.readouterr().err == "chat/1\tmeasuring\tcomparing\n"


def test_a_terminal_is_left_with_the_verdict_alone(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert watch([a_row(narrowing=[asdict(sure(32, -0.1, -0.6, 0.2))])], SILENT, [ended()]) == 0
    told = capsys.readouterr()
    assert told.out == "approved: It is approved.\n"
    assert "−0.10 (−0.60 to +0.20)" in told.err
    assert "asking again" in told.err
