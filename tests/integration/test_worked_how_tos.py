"""Three how-tos, done: each command of the page is typed in its order, and what the page shows is what is printed.

They come after the other files that share the product, as verdicts are judged again here and waivers granted.
"""

import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
from api_stand import served
from checkpoint_folders import copied
from fine_tunes import FineTunes
from typer.testing import CliRunner
from whole_product import BASE, BASE_REFERENCE, Product, Registered

from gate.adapters.metrics import Metrics
from gate.adapters.token_file import TokenFile
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.bootstrap import build_policies, build_registry
from gate.cli import app
from gate.domain.access import Role, made_token
from gate.settings import settings
from tasks.suites import load_suite

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = re.compile(r"^(?P<indent> *)```console\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
PEOPLE = {"ci": Role.SUBMITTER, "rita": Role.REVIEWER}
AS_CI = ("waiver request",)
STATUS = {"policy suggest": 1}
"""Commands whose page says that they end otherwise than well. Few versions are no ground for a limit."""
ID = re.compile(r"\b[0-9a-f]{64}\b")
MODEL = "help-desk"


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Each command of a page that is typed, with what the page shows of its output."""
    for found in CONSOLE.finditer((ROOT / "docs" / "howto" / f"{page}.md").read_text()):
        lines = [line.removeprefix(found["indent"]) for line in found["text"].splitlines()]
        for part in re.split(r"^\$ ", "\n".join(lines), flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def pattern(shown: str) -> re.Pattern[str]:
    """What is shown as a pattern: `…` stands for anything within its line, and alone on a line for any lines."""
    lines = [" ".join(line.replace("3f6c…", "…").split()) for line in shown.splitlines() if line.strip()]
    parts = [r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n" for line in lines]
    return re.compile("".join(parts))


class Reader:
    """Types what a page says, in a folder with the repository's policies, and puts ids where the page has `3f6c…`."""

    def __init__(self, product: Product, url: str, tokens: dict[str, str], patch: pytest.MonkeyPatch) -> None:
        self.product, self.patch, self.tokens, self.id = product, patch, tokens, ""
        for name, value in (product.stack.environment | {"GATE_PUBLIC_URL": url}).items():
            patch.setenv(name, value)

    def types(self, command: str) -> str:
        """The output of a command, which ended as it should."""
        words = shlex.split(command.replace("3f6c…", self.id))
        assert words[0] == "basin-gate"
        what = " ".join(words[1:3])
        self.patch.setenv("GATE_API_TOKEN", self.tokens["ci" if what in AS_CI else "rita"])
        settings.cache_clear()
        if what == "waiver show":
            self.product.until(lambda: self.product.ledger.waiver(self.id).state != "requested", "the waiver's end")
        ended = CliRunner().invoke(app, words[1:])
        assert ended.exit_code == STATUS.get(what, 0), f"{command}\n{ended.output}"
        self.id = next(iter(ID.findall(ended.stdout)), self.id) if what == "waiver request" else self.id
        return ended.stdout

    def does(self, page: str) -> list[str]:
        """Every step of a page; the commands. What they bring about is waited for before the next."""
        done = []
        for command, shown in steps(page):
            printed = "\n".join(" ".join(line.split()) for line in self.types(command).splitlines() if line.strip())
            assert pattern(shown).fullmatch(printed + "\n" if printed else ""), f"{command}\n{printed}"
            self.product.until_quiet()
            done.append(command)
        return done


@pytest.fixture(scope="module")
def versions(product: Product, fine_tune: FineTunes, tmp_path_factory: pytest.TempPathFactory) -> list[Registered]:
    """The pages' versions: twice one with another chat template, one that lost what its base can do, a good one."""
    templated = copied(fine_tune("benign_replay"), tmp_path_factory.mktemp("templated") / "model")
    file = templated / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "{{ messages }}"}))
    product.until_profiled()
    folders = (templated, templated, fine_tune("adversarial"), fine_tune("benign_replay"))
    made = [product.register(MODEL, folder, base=BASE_REFERENCE) for folder in folders]
    product.until_projected(made)
    return made


@pytest.fixture(scope="module")
def gate(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The gate's API before the product's own ledger, for people who have tokens: its address, and theirs."""
    made = {name: made_token(name, role.word) for name, role in PEOPLE.items()}
    file = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    file.write_text("".join(f"{line}\n" for _, line in made.values()))
    door = Door(
        ledger=product.ledger,
        registry=build_registry(product.settings),
        policies=build_policies(product.settings),
        secrets=(),
        clock=time.time,
        metrics=Metrics(),
        broker=lambda: None,
    )
    stand = SimpleNamespace(client=SimpleNamespace(app=create_app(door, Access(TokenFile(file), ()))))
    running: AbstractContextManager[str] = served(stand)
    with running as url:
        yield url, {name: token for name, (token, _) in made.items()}


@pytest.fixture
def reader(
    product: Product,
    versions: list[Registered],
    gate: tuple[str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    for name in ("draft", "organisation"):
        shutil.copy(product.policy, tmp_path / "policies" / f"{name}.yaml")
    shutil.copytree(tmp_path / "policies/cases/default", tmp_path / "policies/cases/draft")
    monkeypatch.chdir(tmp_path)
    yield Reader(product, *gate, monkeypatch)
    settings.cache_clear()


def test_waivers_are_granted_and_end_as_their_page_says(
    reader: Reader, product: Product, versions: list[Registered]
) -> None:
    assert len(reader.does("grant-a-waiver")) == 7
    kept = {each.waiver.ticket: (each.state, each.waiver.approvers) for each in product.ledger.waivers()}
    assert kept == {"OPS-41": ("revoked", ("rita",)), "OPS-42": ("expired", ())}


def test_verdicts_are_reviewed_as_the_page_says(reader: Reader, product: Product, versions: list[Registered]) -> None:
    first, second = versions[:2]
    assert len(reader.does("review-a-verdict")) == 5
    for version, outcome in ((first, "approved"), (second, "blocked")):
        product.until(lambda v=version, o=outcome: product.tags(v)["gate.verdict"] == o, f"{outcome} in MLflow")


def test_a_policy_is_tightened_as_its_page_says(reader: Reader) -> None:
    assert len(reader.does("tighten-a-policy")) == 5


def test_a_verdict_is_kept_with_what_it_was_measured_against(product: Product, versions: list[Registered]) -> None:
    key = product.row(versions[3]).request.key
    against = product.ledger.kept([key])[key].against
    assert against is not None
    [base] = [each for each in product.ledger.bases() if each.name == BASE]
    assert (against.base, against.base_digest, against.suite_digest) == (BASE, base.digest, load_suite("staged").digest)
