"""A suite: which capabilities a base and its fine-tunes are measured with, from one YAML file.

.. code-block:: yaml

    name: support-bot
    chat: true              # wrap prompts in the tokenizer's chat template (default: false)
    licence: CC-BY-4.0      # optional, for people
    description: …          # optional, for people
    capabilities:
      - {name: refunds, scorer: exact, items: refunds.jsonl, margin: 0.05}

Item files are JSON lines, their paths relative to the YAML: ``{"prompt", "answer"}`` for ``exact``,
``{"prompt", "choices", "label"}`` for ``choice``, ``{"text"}`` for ``next_token``.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from gate.domain.checkpoint import FileDigest, Frozen, digest_of
from gate.domain.errors import InvalidInput
from tasks.measurements.benchmark import Benchmark, Item

SHIPPED = Path(__file__).parent / "zoo" / "suites"
"""Where a bare name is looked for: ``<name>/suite.yaml``."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A loaded suite. ``digest`` is the sha256 over the YAML and every item file, whatever folder they lie in."""

    name: str
    digest: str
    chat: bool
    benchmarks: tuple[Benchmark, ...]

    def benchmark(self, capability: str) -> Benchmark:
        """The benchmark of a capability; ``InvalidInput`` where the suite has none."""
        for benchmark in self.benchmarks:
            if benchmark.name == capability:
                return benchmark
        raise InvalidInput(f"expected a capability of suite {self.name!r}, found {capability!r}")


def load_suite(name_or_path: str | Path) -> Suite:
    """Loads a shipped suite by name, or one's own by the path of its YAML or of the folder with ``suite.yaml``.

    ``InvalidInput`` names the file and line of what is wrong.
    """
    path = _find(name_or_path)
    head = _parse_head(path)
    files = {path.name: _read(path)}
    benchmarks = []
    for capability in head.capabilities:
        files[capability.items] = _read(_inside(path, capability.items))
        benchmarks.append(_benchmark(capability, head.chat, path.parent / capability.items, files[capability.items]))
    digests = [FileDigest(path=n, sha256=hashlib.sha256(b).hexdigest(), size=len(b)) for n, b in files.items()]
    return Suite(head.name, digest_of(digests), head.chat, tuple(benchmarks))


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected text, found none")
    return text


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("expected distinct choices, found one twice")
    return values


Text = Annotated[str, AfterValidator(_not_blank)]


class _Exact(Frozen):
    prompt: Text
    answer: Text

    def item(self) -> Item:
        return Item(prompt=self.prompt, answer=self.answer)


class _Choice(Frozen):
    prompt: Text
    choices: Annotated[tuple[Text, ...], Field(min_length=2), AfterValidator(_distinct)]
    label: int = Field(ge=0, strict=True)

    @model_validator(mode="after")
    def _label_names_a_choice(self) -> "_Choice":
        if self.label >= len(self.choices):
            raise ValueError(f"expected a label from 0 to {len(self.choices) - 1}, found {self.label}")
        return self

    def item(self) -> Item:
        return Item(prompt=self.prompt, choices=self.choices, label=self.label)


class _NextToken(Frozen):
    text: Annotated[str, Field(min_length=2), AfterValidator(_not_blank)]

    def item(self) -> Item:
        return Item(text=self.text)


_ITEM: dict[str, type[_Exact] | type[_Choice] | type[_NextToken]] = {
    "exact": _Exact,
    "choice": _Choice,
    "next_token": _NextToken,
}


class _Capability(Frozen):
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    scorer: Literal["exact", "choice", "next_token"]
    items: Text
    margin: float = Field(gt=0, le=1)


class _Head(Frozen):
    name: Text
    capabilities: tuple[_Capability, ...] = Field(min_length=1)
    chat: bool = False
    licence: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _names_once(self) -> "_Head":
        names = [c.name for c in self.capabilities]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"expected each capability once, found {twice} again")
        return self


Shape = TypeVar("Shape", bound=BaseModel)


def _find(name_or_path: str | Path) -> Path:
    given = Path(name_or_path)
    if str(name_or_path) == given.name and (SHIPPED / given.name / "suite.yaml").is_file() and not given.exists():
        return SHIPPED / given.name / "suite.yaml"
    path = given / "suite.yaml" if given.is_dir() else given
    if not path.is_file():
        shipped = sorted(p.parent.name for p in SHIPPED.glob("*/suite.yaml"))
        raise InvalidInput(
            f"expected a suite's YAML file or one of the shipped suites {shipped}, found nothing at {path}; "
            "give the path of your suite.yaml"
        )
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: expected a readable file, found {error.strerror}; correct the suite") from error


def _parse_head(path: Path) -> _Head:
    try:
        found = yaml.safe_load(_read(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: expected YAML, found: {error}; correct the file") from error
    return _shaped(_Head, found, str(path))


def _inside(suite: Path, items: str) -> Path:
    path = suite.parent / items
    if Path(items).is_absolute() or not path.resolve().is_relative_to(suite.parent.resolve()):
        raise InvalidInput(f"{suite}: expected item files inside the suite's folder, found {items!r}; move them there")
    return path


def _benchmark(capability: _Capability, chat: bool, path: Path, content: bytes) -> Benchmark:
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: expected UTF-8 text, found {error.reason}; save the file as UTF-8") from error
    items = tuple(
        _item(capability.scorer, line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    )
    if not items:
        raise InvalidInput(f"{path}: expected at least one item, found an empty file; add items or drop the capability")
    return Benchmark(capability.name, capability.scorer, items, capability.margin, chat)


def _item(scorer: str, line: str, where: str) -> Item:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where}: expected one JSON object, found {line[:60]!r} ({error}); fix the line") from error
    return _shaped(_ITEM[scorer], found, where).item()


def _shaped(shape: type[Shape], found: Any, where: str) -> Shape:
    try:
        return shape.model_validate(found)
    except ValidationError as error:
        raise InvalidInput(f"{where}: {_first_fault(shape, error.errors())}; correct it there") from error


def _first_fault(shape: type[BaseModel], faults: Sequence[Any]) -> str:
    fault = faults[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the whole"
    allowed = ", ".join(shape.model_fields)
    match fault["type"]:
        case "extra_forbidden":
            return f"expected only the keys {allowed}, found {place!r}"
        case "missing":
            return f"expected the keys {allowed}, found no {place!r}"
        case _:
            return f"{place}: {fault['msg']}, found {fault['input']!r:.80}"
