"""The sandbox against programs that try its walls, each in a real confined process."""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_language import tiny_llama, tiny_tokenizer

from gate.domain.errors import NotMeasurable
from gate.settings import Settings
from tasks import sandbox, sandboxed
from tasks.measurements.benchmark import Benchmark, Item, score_items
from tasks.sandbox import check_items, passes, run_confined
from tasks.suites import load_suite

LANDLOCK_ABI = ctypes.CDLL(None).syscall(444, None, 0, 1) if sys.platform == "linux" else -1
pytestmark = pytest.mark.skipif(
    LANDLOCK_ABI < 3, reason=f"needs Landlock's ABI 3 or later, and this has {LANDLOCK_ABI}"
)

ADD = "def add(a, b):\n    return a + b\n"
ADD_TESTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"


def reaches(attempt: str) -> bool:
    """Whether a program that tries this, and takes every refusal quietly, gets what it wants: its tests pass then."""
    program = f"def attempt():\n    import os, socket\n    {attempt}\n    return True\n"
    return run_confined(program, "try:\n    got = attempt()\nexcept OSError:\n    got = False\nassert got\n")


@pytest.mark.parametrize(
    ("program", "tests", "passed"),
    [
        (ADD, ADD_TESTS, True),
        (ADD.replace("+", "-"), ADD_TESTS, False),
        ("def add(a, b:", ADD_TESTS, False),
        ("", ADD_TESTS, False),
        ("import hashlib, json, math, random, re, collections, decimal, datetime", "assert math.pi > 3", True),
        ("if __name__ == '__main__':\n    raise SystemExit", "assert True", True),
    ],
    ids=["right", "wrong", "no Python", "nothing", "standard library", "main block"],
)
def test_the_tests_tell_right_programs_from_wrong_ones(program: str, tests: str, passed: bool) -> None:
    assert run_confined(program, tests) is passed


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import os\nos.write(3, b'confined\\nyes')\nos._exit(0)",
        "import atexit\natexit.register(print, 'done')\nraise ValueError",
    ],
    ids=["leaves at once", "exits", "writes a result", "leaves something behind"],
)
def test_leaving_before_the_tests_is_no_pass(program: str) -> None:
    assert run_confined(program, "assert True") is False


@pytest.mark.parametrize(
    "attempt",
    [
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.create_connection(('127.0.0.1', 80), 1)",
        "os.kill(PID, 0)",
        "os.killpg(1, 0)",
        "open('/etc/passwd').read()",
        "open('/proc/PID/environ', 'rb').read()",
        "open('/proc/PID/mem', 'rb')",
        "open('/proc/self/environ', 'rb').read()",
        "open('/dev/shm/written', 'w')",
        "open('written', 'w')",
        "os.listdir('/')",
        "os.chmod(os.devnull, 0o666)",
        "os.unlink('/tmp/unlinked')",
        "os.truncate('/tmp/truncated', 0)",
        "os.symlink('/etc', '/tmp/linked')",
        "os.setuid(1)",
        "os.memfd_create('room')",
        "os.pipe()",
    ],
)
def test_what_would_reach_outside_is_refused(attempt: str) -> None:
    assert reaches(attempt.replace("PID", str(os.getpid()))) is False


@pytest.mark.parametrize(
    ("name", "number"),
    [("ptrace", 101), ("process_vm_readv", 310), ("unshare", 272), ("io_uring_setup", 425), ("bpf", 321)],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_the_kernel_answers_other_system_calls_with_not_permitted(name: str, number: int) -> None:
    calls = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfound = libc.syscall({number}, 0, 0, 0, 0, 0, 0)"
    assert run_confined(calls, "assert (found, ctypes.get_errno()) == (-1, 1)"), name


def test_what_can_be_read_is_the_standard_library_and_not_this_test() -> None:
    assert reaches("open(os.__file__).read()")
    assert not reaches(f"open({__file__!r}).read()")


def test_the_environment_holds_nothing_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_WEBHOOK_SECRETS", "a secret of the gate")
    known = "assert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, os.environ"
    assert run_confined("import os", known)


def test_no_open_file_of_the_worker_is_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the gate")
    with secret.open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        assert not reaches(f"os.read({file.fileno()}, 10)")


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "room = 'x'\nwhile True: room += room",
        "import time\ntime.sleep(3600)",
        "while True: print('x' * 10_000)",
        "import os\nwhile True: os.write(3, b'x' * 1000)",
        "import os\nwhile True: os.fork()",
        "def again(): again()\nagain()",
    ],
    ids=["loop", "memory", "sleep", "output", "flooded result", "fork bomb", "recursion"],
)
def test_a_program_that_takes_too_much_ends_without_a_pass(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU_S", 1)
    assert run_confined(program, "assert True") is False


def test_a_program_that_locks_itself_out_is_killed_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_S", 6.0)
    locked = "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
    assert run_confined(locked, "assert True") is False


def allow(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    monkeypatch.setattr(sandbox, "settings", lambda: Settings(code_execution=allowed))


def test_nothing_is_run_unless_an_operator_allowed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().code_execution is False
    allow(monkeypatch, False)
    with pytest.raises(NotMeasurable, match=r"not measurable: expected GATE_CODE_EXECUTION=true .* found it off"):
        passes([(ADD, ADD_TESTS)])


def test_allowed_programs_are_run_in_a_sandbox_that_held(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, True)
    wrong = ADD.replace("+", "-")
    assert passes([(ADD, ADD_TESTS), (wrong, ADD_TESTS)] * 3) == [True, False] * 3
    assert passes([]) == []


def test_a_machine_that_cannot_confine_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real script, on a kernel that it takes for one without Landlock."""
    script = tmp_path / "sandboxed.py"
    source = Path(sandboxed.__file__).read_text(encoding="utf-8")
    script.write_text(source.replace("FEWEST_ABI = 3", "FEWEST_ABI = 1_000"))
    monkeypatch.setattr(sandboxed, "__file__", str(script))
    with pytest.raises(NotMeasurable, match=r"found: expected a kernel with Landlock's ABI 1000 \(Linux 6.2\), found"):
        run_confined(ADD, ADD_TESTS)


def test_a_sandbox_with_a_hole_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "sandboxed.py"
    source = Path(sandboxed.__file__).read_text(encoding="utf-8")
    script.write_text(source.replace("    _close_files(readable)\n", ""))
    monkeypatch.setattr(sandboxed, "__file__", str(script))
    allow(monkeypatch, True)
    sandbox._require_confinement.cache_clear()
    with pytest.raises(NotMeasurable, match="expected a sandbox that holds"):
        passes([(ADD, ADD_TESTS)])


def coded(*items: Item, **more: object) -> Benchmark:
    return Benchmark("adding", "code", items, 0.1, passes=passes, **more)


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (Item("def add(a, b):\n", answer="    return a - b\n", tests=ADD_TESTS), "an answer that fails its tests"),
        (Item("x = 1\n", answer="y = 2\n", tests="assert x"), "tests that pass without an answer"),
    ],
)
def test_items_that_prove_nothing_are_refused(item: Item, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, True)
    sound = Item("def add(a, b):\n", answer="    return a + b\n", tests=ADD_TESTS)
    check_items(coded(sound))
    with pytest.raises(NotMeasurable, match=f"capability adding, item 2: .*{found}"):
        check_items(coded(sound, item))


def test_a_suite_may_have_code(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(
        "name: mine\ncapabilities:\n  - {name: adding, scorer: code, items: code.jsonl, margin: 0.1}\n"
    )
    (tmp_path / "code.jsonl").write_text(
        '{"prompt": "def one():", "answer": " return 1", "tests": "assert one() == 1"}'
    )
    benchmark = load_suite(tmp_path).benchmark("adding")
    assert benchmark.items == (Item("def one():", answer=" return 1", tests="assert one() == 1"),)
    assert benchmark.passes is passes


def test_what_a_model_writes_is_run_with_its_prompt_up_to_the_next_thing() -> None:
    """A random model writes no programs: its answer is made the rest of a text in a comment."""
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    seen: list[str] = []

    def run(programs: Sequence[tuple[str, str]]) -> list[bool]:
        seen.extend(program for program, _ in programs)
        return [run_confined(f"text = {program!r}", tests) for program, tests in programs]

    items = tuple(
        Item(p, answer="pass", tests=t) for p, t in (("a", "assert text[0] == 'a'"), ("the", "assert text == ''"))
    )
    benchmark = Benchmark("c", "code", items, 0.1, passes=run)
    assert score_items(model, tokenizer, benchmark, [1, 0]).tolist() == [0.0, 1.0]
    together = list(seen)
    score_items(model, tokenizer, benchmark, [0], batch=1)
    assert seen[-1] in together
    assert all(len(program) <= len("the") + 2 * len("pass") for program in together)
