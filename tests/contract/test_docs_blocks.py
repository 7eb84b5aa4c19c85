"""Every code block of the documentation is checked in some way, and what cannot be run here says why not.

Run or checked elsewhere: the tutorial by `test_tutorial.py`; three how-tos, with what they print, by `test_worked_how_tos.py`;
`basin-gate` lines, policies, suites and items by `test_docs.py`; SQL and PromQL by `test_alerts.py`; the chart's values by
`test_chart_agrees_with_product.py`.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<words>[^\n`]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
KINDS = {"console", "python", "yaml", "json", "sql", "promql", "text"}
KUBERNETES = kubernetes_validate.latest_version()

NOT_RUN: Mapping[str, str] = {
    "kubectl": "needs a cluster",
    "helm": "needs a cluster; the chart's tests render and check what it would install",
    "docker": "needs a container engine and a network; tests/tools/try_images.py runs the images",
    "curl": "asks a server that is an example's; its path is one that the API or MLflow serves",
    "amtool": "needs an Alertmanager",
    "pip": "needs a network",
    "mlflow": "a server that runs on; the tests start the same one",
    "nvidia-smi": "needs a GPU",
    "df": "tells of a disk that is an example's",
}
"""Programs of the documentation that the tests do not run, and why."""
SHELL = {"export", ".", "tee", "sed", "cat"}
CHECKED = {"basin-gate", "make", "python", *SHELL}
OTHERS_KINDS = {
    "argoproj.io/v1alpha1": "AnalysisTemplate of Argo Rollouts, whose schema is not at hand",
    "flagger.app/v1beta1": "Canary of Flagger, whose schema is not at hand",
}


def blocks(kind: str = "") -> Iterator[tuple[Path, str, str]]:
    """(page, words of the fence, text) of each block, of one kind or of all."""
    for page in PAGES:
        for found in FENCE.finditer(page.read_text()):
            if not kind or found["words"].split(" ")[0] == kind:
                yield page, found["words"], found["text"]


def commands(text: str) -> Iterator[str]:
    """The commands of a console block, each with the lines it goes on in."""
    lines = text.splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith("$ "):
            continue
        command = line[2:]
        while command.endswith("\\") and lines:
            command = command[:-1] + lines.pop(0).strip().removeprefix("> ")
        yield command


def every_command() -> Iterator[Any]:
    for page, _, text in blocks("console"):
        for command in commands(text):
            yield pytest.param(page, command, id=f"{page.relative_to(ROOT)}:{command[:60]}")


def programs(command: str) -> Iterator[list[str]]:
    """The words of each simple command in a line, without the variables set before it."""
    lexer = shlex.shlex(re.sub(r" +#.*$", "", command), posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;()<>") and not set(word) & set("<>"):
            if words:
                yield words
            words = []
        elif words or "=" not in word.partition("/")[0]:
            words.append(word)


def test_every_block_says_what_it_is() -> None:
    kinds = {(str(page.relative_to(ROOT)), words) for page, words, _ in blocks() if words.split(" ")[0] not in KINDS}
    assert kinds == set()


@pytest.mark.parametrize(("page", "command"), list(every_command()))
def test_a_command_is_one_for_the_shell_and_its_programs_are_known(page: Path, command: str) -> None:
    parsed = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    for words in programs(command):
        program = words[0]
        assert program in CHECKED or program in NOT_RUN, f"{program}: check what it does, or say why it cannot be run"
        if program == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        if program == "python":
            python(page, words[1:])
        if program == "curl":
            served_path(words)


def python(page: Path, words: list[str]) -> None:
    """A script of the repository, one that the page has the reader save, or a line that compiles."""
    if words[0] == "-c":
        compile(words[1], str(page), "exec")
    else:
        assert (ROOT / words[0]).is_file() or f"Save this as `{words[0]}`" in page.read_text()


def served_path(words: list[str]) -> None:
    """What is asked for by hand is a path of the API or of MLflow."""
    (address,) = [w for w in words if re.match(r"https?://|\$GATE_PUBLIC_URL|\$MLFLOW_TRACKING_URI", w)]
    path = re.sub(r"^(https?://[^/]+|\$[A-Z_]+)", "", address)
    known = (ROOT / "gate" / "api" / "routes.py").read_text()
    assert f'"{path}"' in known or path.startswith("/api/2.0/mlflow/")


@pytest.mark.parametrize(
    ("page", "text"),
    [pytest.param(p, t, id=f"{p.relative_to(ROOT)}:{n}") for n, (p, _, t) in enumerate(blocks("yaml"))],
)
def test_yaml_loads_and_what_is_for_kubernetes_is_of_its_schema(page: Path, text: str) -> None:
    for document in yaml.safe_load_all(text):
        assert isinstance(document, dict | list)
        if not isinstance(document, dict) or "apiVersion" not in document:
            continue
        if document["apiVersion"] not in OTHERS_KINDS:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_python_that_is_shown_alone_names_what_exists() -> None:
    found = 0
    for page, _, text in blocks("python"):
        for module, names in re.findall(r"^from ((?:gate|tasks)[\w.]*) import (.+)$", text, re.MULTILINE):
            there = __import__(module, fromlist=["x"])
            for name in names.split(", "):
                found += 1
                assert hasattr(there, name) or (Path(there.__file__ or "").parent / f"{name}.py").is_file(), page
    assert found


def test_nothing_is_excused_that_the_documentation_does_not_use() -> None:
    used = {words[0] for _, _, text in blocks("console") for command in commands(text) for words in programs(command)}
    assert set(NOT_RUN) <= used
    text = "\n".join(text for _, _, text in blocks("yaml"))
    assert all(kind in text for kind in OTHERS_KINDS)
