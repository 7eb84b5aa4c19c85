"""The tutorial, done: every step of its page is run as a reader would, from the base to MLflow's refusal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from whole_product import Product

from gate.embedded import EmbeddedStack

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
STEP = re.compile(r"^## \d+\. (?P<title>.+)$", re.MULTILINE)
FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SAVED = re.compile(r"Save this as `(?P<name>[\w.]+)`[^\n]*\n\n```python\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
# What the fixture does in another way: the demo has tests of its own, and a stack is started with ports that are free.
NOT_HERE = ("make demo", ". .venv/bin/activate", "basin-gate up")
PATIENCE_S = 900


def steps() -> dict[str, str]:
    """Each step's text by its title."""
    parts = STEP.split(PAGE.read_text().partition("\n## Next")[0])
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[str]:
    """What a reader types."""
    blocks = (found["text"] for found in FENCE.finditer(text) if found["kind"] == "console")
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def reader(product: Product, tmp_path_factory: pytest.TempPathFactory) -> "Reader":
    """A shell in an empty folder, with the variables that the stack prints."""
    return Reader(tmp_path_factory.mktemp("tutorial"), product.stack)


class Reader:
    """Types what the page says."""

    def __init__(self, room: Path, stack: EmbeddedStack) -> None:
        self.room, self.stack = room, stack
        here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | stack.environment | {"PATH": here, "OMP_NUM_THREADS": "1"}

    def types(self, command: str) -> subprocess.CompletedProcess[str]:
        shell = ["bash", "-c", command]
        return subprocess.run(
            shell, cwd=self.room, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def does(self, title: str) -> list[subprocess.CompletedProcess[str]]:
        """A whole step: saves its files, types its commands; each has to go well but for a refusal that the page shows."""
        text = steps()[title]
        for found in SAVED.finditer(text):
            (self.room / found["name"]).write_text(found["text"])
        ended = [(command, self.types(command)) for command in commands(text)]
        for command, result in ended:
            refused = "PERMISSION_DENIED" in text and "'champion', '2'" in command
            assert (result.returncode != 0) == refused, f"{command}\n{result.stdout}\n{result.stderr}"
        return [result for _, result in ended]


def test_the_page_has_the_steps_that_are_done_here() -> None:
    titles = list(steps())
    assert len(titles) == 7
    assert [c for title in titles[:2] for c in commands(steps()[title])] == list(NOT_HERE)


@pytest.mark.timeout(1800)
def test_a_reader_comes_from_nothing_to_mlflows_refusal(reader: Reader) -> None:
    titles = list(steps())
    reader.does(titles[2])
    assert sorted(p.name for p in (reader.room / "models").iterdir()) >= ["adversarial", "base", "benign_replay"]

    [onboarded] = reader.does(titles[3])
    assert onboarded.stdout.startswith("onboarded tiny-base, sha256 ")

    reader.does(titles[4])
    for version, status in (("1", 0), ("2", 1)):
        assert reader.types(f"basin-gate watch assistant {version}").returncode == status, reader.stack.log_tail("api")

    listed, shown = reader.does(titles[5])
    assert {tuple(line.split("\t")[:3]) for line in listed.stdout.splitlines()} >= {
        ("assistant/1", "done", "approved"),
        ("assistant/2", "done", "blocked"),
    }
    assert "✕ Blocked: assistant version 2" in shown.stdout

    refused, allowed = reader.does(titles[6])
    assert "PERMISSION_DENIED: [basin-gate] Setting alias 'champion' on version '2' of 'assistant' is refused" in (
        refused.stdout + refused.stderr
    )
    assert "Safety fell" in refused.stdout + refused.stderr
    assert "basin-gate" not in allowed.stderr
