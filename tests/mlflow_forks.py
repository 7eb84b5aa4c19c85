"""MLflow servers forked off one process that has MLflow imported already.

`mlflow server` imports MLflow and starts a second process that imports it again: eight seconds of a core before anything
answers, for each of the two dozen servers of the tests. What is forked here runs MLflow's own command line with the same
arguments and environment, except that the second process is this one; of what MLflow reads from the environment while it
is imported (allowed hosts, prefix of its paths, exporter of metrics) all is left at its default.

As a program this reads a request in JSON from each line (`arguments`, `environment`, `log`, `anew`) and answers with the number
of the server's process. At the end of its input it kills the servers that are left.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn


class Forks:
    """The process that is forked, seen from the tests."""

    def __init__(self) -> None:
        command = (sys.executable, __file__)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, *, anew: bool = False) -> int:
        """Start `mlflow server` with these arguments in a process group of its own, importing all anew if so asked; its
        number."""
        asked = {"arguments": list(arguments), "environment": dict(environment), "log": str(log), "anew": anew}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(
                f"expected a forked MLflow server, found that their parent ended: {self._process.wait()}"
            )
        return int(answer)


@cache
def forks() -> Forks:
    """The parent of this process's servers, started when first asked for; it ends with the process that asked."""
    return Forks()


def main() -> None:
    """Import what a server needs, then fork a server for each request."""
    for name in ("uvicorn", "mlflow.cli", "mlflow.server.fastapi_app"):
        # By the first being there MLflow knows that it is imported to serve.
        import_module(name)
    # Nobody waits for the servers: their remains go at once.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    started = []
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if process == 0:
            become(**asked)
        started.append(process)
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


def become(arguments: list[str], environment: dict[str, str], log: str, anew: bool) -> NoReturn:
    """Leave the parent behind and run `mlflow server`."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, opened in enumerate(
        (os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    ):
        os.dup2(opened, number)
    os.dup2(1, 2)
    if anew:
        os.execve(sys.executable, [sys.executable, "-m", "mlflow", "server", *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    import mlflow.cli
    import mlflow.server

    mlflow.server._exec_cmd = served_here
    mlflow.cli.cli(["server", *arguments], prog_name="mlflow")
    sys.exit(1)


def served_here(command: list[str], *, extra_env: dict[str, str], **_: object) -> NoReturn:
    """What MLflow would start as a second process, in this one."""
    os.environ.update(extra_env)
    import uvicorn

    uvicorn.main(command[command.index("uvicorn") + 1 :])
    sys.exit(1)


if __name__ == "__main__":
    main()
