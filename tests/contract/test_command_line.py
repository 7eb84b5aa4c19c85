"""The command line as a whole: JSON for scripts, completion for shells, colour and wrapping for terminals alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from gate.cli import app, main
from gate.settings import settings
from tasks.cli import register

NO_JSON: Mapping[str, str] = {
    "up": "runs until it is stopped",
    "api": "runs until it is stopped",
    "dispatcher": "runs until it is stopped",
    "worker": "runs until it is stopped",
    "demo": "a show for people",
    "export": "prints the document of the form that is asked for",
    "revocations": "prints the signed list, which is JSON",
    "audit export": "prints lines of JSON",
    "keys generate": "prints the public key as PEM",
}
"""Commands without ``--json``, and why."""
HEAVY = {"celery", "fastapi", "matplotlib", "mlflow", "pandas", "scipy", "torch", "transformers"}
"""Packages that take longer to import than most commands take altogether."""


def commands(group: TyperGroup, above: str = "") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name, command


@pytest.fixture(scope="module")
def known() -> dict[str, typer.core.TyperCommand]:
    register(app)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(commands(group))


def run(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell would run it in a pipe, with nothing of ours in its environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATE_")}
    environment = inherited | {"GATE_STATE_DIR": str(cwd / "state")} | variables
    command = [str(Path(sys.executable).with_name("basin-gate")), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False)


def test_every_command_speaks_json_or_says_why_not(known: dict[str, typer.core.TyperCommand]) -> None:
    silent = {name for name, command in known.items() if not any("--json" in p.opts for p in command.params)}
    assert silent == set(NO_JSON)


def test_a_command_waits_for_no_package_that_it_does_not_use(tmp_path: Path) -> None:
    script = "import sys, typer, gate.cli, tasks.cli; tasks.cli.register(gate.cli.app); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert HEAVY & set(loaded.stdout.split()) == set()


def test_every_option_and_argument_says_what_it_is(known: dict[str, typer.core.TyperCommand]) -> None:
    bare = [(name, p.name) for name, command in known.items() for p in command.params if not getattr(p, "help", "")]
    assert bare == []
    assert all(command.help for command in known.values())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("version",), "version"),
        (("token", "new", "ci", "--role", "reader"), "token"),
        (("ledger", "migrate"), "up_to_date"),
        (("policy", "lint", str(Path(__file__).parents[2] / "policies" / "default.yaml")), "policies"),
    ],
)
def test_json_is_all_that_a_pipe_gets(tmp_path: Path, words: tuple[str, ...], key: str) -> None:
    ended = run(*words, "--json", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)[key]


def test_bases_are_onboarded_and_listed_in_json(tmp_path: Path) -> None:
    staged = Path(__file__).parents[2] / "tasks" / "zoo" / "staged"
    added = run("base", "add", str(staged), "--suite", "staged", "--name", "b", "--json", cwd=tmp_path)
    assert (added.returncode, added.stderr) == (0, "")
    (tmp_path / "bases.yaml").write_text(
        json.dumps({"bases": [{"source": str(staged), "suite": "staged", "name": "b"}]})
    )
    applied = run("base", "apply", "bases.yaml", "--json", cwd=tmp_path)
    assert json.loads(applied.stdout) == {"bases": [{"name": "b", "changed": False}]}
    [listed] = json.loads(run("base", "ls", "--json", cwd=tmp_path).stdout)["bases"]
    assert (listed["name"], listed["digest"]) == ("b", json.loads(added.stdout)["sha256"])


def test_an_error_reaches_a_pipe_in_one_line_without_colour(tmp_path: Path) -> None:
    ended = run("policy", "lint", "no/such/policy-" + "x" * 120 + ".yaml", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("basin-gate: ")
    assert ended.stderr.count("\n") == 1
    assert "\x1b" not in ended.stderr


ASKING = (
    ("ls",),
    ("show", "m", "1"),
    ("watch", "m", "1", "2"),
    ("diff", "m", "1", "2"),
    ("export", "models:/m/1", "--format", "cyclonedx"),
    ("review", "ls"),
    ("waiver", "ls"),
)
"""Commands that ask a running gate."""


@pytest.mark.parametrize("words", ASKING, ids=lambda words: "-".join(words[:2]))
def test_a_gate_that_is_not_there_is_an_error_that_names_the_setting(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Port 9 is the discard service's, which nothing here offers.
    monkeypatch.setenv("GATE_PUBLIC_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["basin-gate", *words])
    settings.cache_clear()
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        settings.cache_clear()
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert "expected the gate at http://127.0.0.1:9 (GATE_PUBLIC_URL)" in told.err
    assert told.err.count("\n") == 1


def on_a_terminal(*words: str, cwd: Path, **variables: str) -> str:
    """What a person sees on a terminal of 100 columns, control sequences and all."""
    pty = pytest.importorskip("pty", reason="needs a terminal")
    leader, follower = pty.openpty()
    environment = os.environ | {"GATE_STATE_DIR": str(cwd), "TERM": "xterm-256color", "COLUMNS": "100"} | variables
    with subprocess.Popen(
        [sys.executable, "-m", "gate", *words], stdout=follower, stderr=follower, cwd=cwd, env=environment
    ) as process:
        os.close(follower)
        seen = b""
        try:
            while read := os.read(leader, 4096):
                seen += read
        except OSError:  # Linux ends so once nobody holds the other side.
            pass
        process.wait(timeout=120)
    os.close(leader)
    return seen.decode()


def test_colour_is_for_terminals_and_no_color_takes_it_away(tmp_path: Path) -> None:
    words = ("policy", "lint", "no/such/policy.yaml")
    inherited = {"NO_COLOR": ""}
    assert "\x1b[31m" in on_a_terminal(*words, cwd=tmp_path, **inherited)
    assert "\x1b[31m" not in on_a_terminal(*words, cwd=tmp_path, NO_COLOR="1")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(tmp_path: Path, shell: str) -> None:
    script = run(cwd=tmp_path, _BASIN_GATE_COMPLETE=f"source_{shell}", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "basin-gate" in script.stdout or "basin_gate" in script.stdout


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def completed(line: str) -> set[str]:
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        return set(run(cwd=tmp_path, _BASIN_GATE_COMPLETE="complete_bash", **asked).stdout.split())

    assert completed("basin-gate sh") == {"show"}
    assert {"replay", "lint", "test"} <= completed("basin-gate policy ")
    assert {"--json", "--prompts"} <= completed("basin-gate show --")
