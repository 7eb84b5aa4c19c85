"""Runs code that a candidate wrote, where an operator allowed it: each program in a process that can only compute.

What such a program can still do is use its own limits up, tell that a file exists, and lie about its own tests, which run in
its own interpreter. It is never given a secret, so that it has none to tell; see the page on suites.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile

from gate.domain.errors import NotMeasurable
from gate.settings import settings
from tasks import sandboxed
from tasks.measurements.benchmark import Benchmark

CPU_S = 2
"""Seconds of a core for one program with its tests."""
WALL_S = 20.0
"""Seconds of the clock for one program. It cannot sleep: only one that locks itself out comes near."""

_OPTIONS = ("-P", "-s", "-S", "-B")
# Sets and dictionaries of text in the same order each time: a score must not be a matter of luck.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}

_PROBE = """
import os, socket
def refused(attempt):
    try:
        attempt()
    except OSError:
        return True
    return False
"""
_PROBE_TESTS = """
assert refused(lambda: open("/proc/self/environ"))
assert refused(lambda: open("/etc/passwd"))
assert refused(lambda: open("/tmp/written", "w"))
assert refused(socket.socket)
assert refused(os.fork)
assert refused(lambda: os.kill(os.getpid(), 0))
"""


def passes(programs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the tests run through after the program, both Python source, each pair in a sandboxed process of its own.

    Raises `NotMeasurable` where nobody allowed that, or this machine cannot confine a process.
    """
    if not settings().code_execution:
        raise NotMeasurable(
            "not measurable: expected GATE_CODE_EXECUTION=true where suites have the scorer `code`, found it off; "
            "set it on workers that may run, confined, what a candidate writes"
        )
    _require_confinement()
    # Limits are of a core's time and not of the clock's: how many run at once changes no answer.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(lambda pair: run_confined(*pair), programs))


def run_confined(program: str, tests: str) -> bool:
    """One of ``passes``, whoever asks. Raises `NotMeasurable` where the process could not be confined: it ran nothing."""
    word = secrets.token_hex(16)
    task = {"program": program, "tests": tests, "word": word, "readable": list(_readable()), "cpu_s": CPU_S}
    with TemporaryFile() as given, TemporaryFile() as result:
        given.write(json.dumps(task).encode())
        given.seek(0)
        _run(given.fileno(), result.fileno())
        result.seek(0)
        written = result.read(sandboxed.FILE_BYTES)
    if not written.startswith(sandboxed.CONFINED):
        found = written.removeprefix(sandboxed.REFUSED).decode(errors="replace") or "a process that ended at once"
        raise NotMeasurable(
            f"not measurable: expected a machine that can confine a process (Landlock and seccomp), found: {found}; "
            "run this worker on Linux 6.2 or later, or take the suite without the scorer `code`"
        )
    return written == sandboxed.CONFINED + word.encode()


def check_items(benchmark: Benchmark) -> None:
    """Refuses items of ``code`` whose own answer fails their tests, or whose tests an empty answer passes.

    Raises `NotMeasurable`, naming the item.
    """
    own = passes([(benchmark.program(item, item.reference), item.tests) for item in benchmark.items])
    none = passes([(benchmark.program(item, ""), item.tests) for item in benchmark.items])
    for place, (right, nothing) in enumerate(zip(own, none, strict=True), 1):
        if nothing or not right:
            found = "tests that pass without an answer" if nothing else "an answer that fails its tests"
            raise NotMeasurable(
                f"not measurable: capability {benchmark.name}, item {place}: expected tests that the item's own answer "
                f"passes and an empty one does not, found {found}; correct the item"
            )


@lru_cache(maxsize=1)
def _require_confinement() -> None:
    """Has the sandbox hold against a program that tries its walls, once per process. Raises `NotMeasurable`."""
    if not run_confined(_PROBE, _PROBE_TESTS):
        raise NotMeasurable(
            "not measurable: expected a sandbox that holds, found a program in it that could do what it must not, or "
            "could not import the standard library; run this worker on Linux 6.2 or later, or on x86_64"
        )


def _run(given: int, result: int) -> None:
    """Runs the script to its end, or until its time is over; then nothing of its process group is left."""
    command = [sys.executable, *_OPTIONS, sandboxed.__file__]
    with subprocess.Popen(
        command,
        stdin=given,
        stdout=result,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            process.wait(WALL_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _readable() -> Iterator[str]:
    """The folders that Python's imports need."""
    wanted = ("/lib", "/lib64", "/usr/lib", f"{sys.base_prefix}/lib", sysconfig.get_path("stdlib"))
    return (folder for folder in dict.fromkeys(wanted) if Path(folder).is_dir())
