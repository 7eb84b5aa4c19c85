"""A suite: which capabilities a base and its fine-tunes are measured with, from one YAML file.

.. code-block:: yaml

    name: support-bot
    chat: true              # wrap prompts in the tokenizer's chat template (default: false)
    licence: CC-BY-4.0      # optional, for people
    description: …          # optional, for people
    capabilities:
      - {name: refunds, scorer: exact, items: refunds.jsonl, margin: 0.05}

Item files are JSON lines, their paths relative to the YAML: ``{"prompt", "answer"}`` for ``exact``, ``cloze``, ``number`` and ``refusal``,
``{"prompt", "choices", "label"}`` for ``choice``, ``{"text"}`` for ``next_token``, ``{"prompt", "answer", "tests"}``
for ``code``.

``items: lm_eval:gsm8k`` with ``scorer: lm_eval`` are a task of the lm-evaluation-harness instead (``tasks.harness``), of which
``first`` documents are asked and ``metric`` is the score; ``lm_eval_tasks`` is a folder with tasks of one's own.

``weight: 2`` gives a capability twice another's part of the error probability that all share; ``refusals`` are phrases by which the
judge of ``refusal`` knows one beside its own.

With ``rotates_every_days: 30`` a capability may have ``hidden: FILE.jsonl`` and ``hidden_items: 200``: beside its items it is
asked that many of the hidden ones, others in each period (``tasks.rotation``). No hidden line is ever in a message.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from gate.domain.checkpoint import FileDigest, Frozen, digest_of
from gate.domain.errors import InvalidInput
from tasks import sandbox
from tasks.measurements.answers import Judge
from tasks.measurements.benchmark import Benchmark, Item, Scorer
from tasks.rotation import Period, draw, keyed, secret_of_rotation
from tasks.suite_items import Faulty, Text, read_items, read_lines, shaped

HARNESS = "lm_eval:"
SHIPPED = Path(__file__).parent / "zoo" / "suites"
"""Where a bare name is looked for: ``<name>/suite.yaml``."""


MOST_PERIODS_BACK = 3
"""How many periods ago a suite may have been asked with that is asked for by its digest."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A loaded suite. ``digest`` is the sha256 over the YAML and every item file, whatever folder they lie in.

    Of hidden items it covers those drawn for ``period``, the days on which they are; ``None`` where none are hidden.
    """

    name: str
    digest: str
    chat: bool
    benchmarks: tuple[Benchmark, ...]
    period: Period | None = None

    def benchmark(self, capability: str) -> Benchmark:
        """The benchmark of a capability; ``InvalidInput`` where the suite has none."""
        for benchmark in self.benchmarks:
            if benchmark.name == capability:
                return benchmark
        raise InvalidInput(f"expected a capability of suite {self.name!r}, found {capability!r}")

    def alphas(self, alpha: float) -> Mapping[str, float]:
        """Each capability's error probability where all of them together may err with ``alpha``: Bonferroni, by their weights."""
        whole = sum(benchmark.weight for benchmark in self.benchmarks)
        return {benchmark.name: alpha * benchmark.weight / whole for benchmark in self.benchmarks}


def load_suite(name_or_path: str | Path, *, like: str | None = None, now: float | None = None) -> Suite:
    """Loads a shipped suite by name, or one's own by the path of its YAML or of the folder with ``suite.yaml``.

    Hidden items are those of ``now``; with ``like``, those of the latest period in which the digest was that.
    ``InvalidInput`` names the file and line of what is wrong, or says that nothing is like that (any more).
    """
    path = _find(name_or_path)
    head = _parse_head(path)
    if head.rotates_every_days is None:
        return _like(like, [_loaded(path, head, None)], path)
    latest = Period.at(time.time() if now is None else now, head.rotates_every_days)
    periods = [latest.before(n) for n in range(1 if like is None else 1 + MOST_PERIODS_BACK)]
    return _like(like, (_loaded(path, head, period) for period in periods), path)


def _like(digest: str | None, suites: Iterable[Suite], path: Path) -> Suite:
    for suite in suites:
        if digest in (None, suite.digest):
            return suite
    raise InvalidInput(
        f"{path}: expected the suite with sha256 {(digest or '')[:12]}, found it changed since it was asked for; "
        "have the version evaluated again"
    )


def _loaded(path: Path, head: "_Head", period: Period | None) -> Suite:
    files, benchmarks = {path.name: _digest(path.name, _read(path))}, []
    for capability in head.capabilities:
        if capability.scorer == "lm_eval":
            benchmark, digest = _of_harness(capability, head, path)
            files[digest.path] = digest
            benchmarks.append(benchmark)
            continue
        content = _read(_inside(path, capability.items))
        files[capability.items] = _digest(capability.items, content)
        benchmark = _benchmark(capability, head.chat, path.parent / capability.items, content)
        if capability.hidden is not None and period is not None:
            hidden, digest = _drawn(capability, path, period)
            files[digest.path] = digest
            benchmark = replace(benchmark, items=benchmark.items + hidden, shown=len(benchmark.items))
        benchmarks.append(benchmark)
    return Suite(head.name, digest_of(list(files.values())), head.chat, tuple(benchmarks), period)


def _of_harness(capability: "_Capability", head: "_Head", suite: Path) -> tuple[Benchmark, FileDigest]:
    """A task of the harness as a benchmark, and what the suite's digest covers of it: its requests."""
    try:
        harness = import_module("tasks.harness")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"{suite}: expected the lm-evaluation-harness for {capability.items}, found no {error.name}; "
            "install basin-gate[lm-eval]"
        ) from error
    folder = None if head.lm_eval_tasks is None else _inside(suite, head.lm_eval_tasks)
    name = capability.items.removeprefix(HARNESS)
    task = harness.load_task(name, folder, capability.first, capability.metric)
    about = FileDigest(path=f"{capability.name}/{capability.items}", sha256=task.digest, size=len(task.items))
    benchmark = Benchmark(
        capability.name,
        "lm_eval",
        task.items,
        capability.margin,
        head.chat,
        outside=task.score,
        weight=capability.weight,
    )
    return benchmark, about


def _digest(path: str, content: bytes) -> FileDigest:
    return FileDigest(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _drawn(capability: "_Capability", suite: Path, period: Period) -> tuple[tuple[Item, ...], FileDigest]:
    """A capability's hidden items of the period, and what of them the suite's digest covers: keyed, since it is public."""
    assert capability.hidden is not None
    path = _inside(suite, capability.hidden)
    content = _read(path)
    try:
        items = read_items(capability.scorer, path, content)
    except Faulty as fault:
        raise InvalidInput(
            f"{fault.where}: expected an item of the scorer {capability.scorer}, found something else, which is not shown "
            "because it is hidden; correct the line"
        ) from None
    if _not_refusing(capability, items):
        raise InvalidInput(
            f"{path}: expected answers that refuse, found one that the judge does not take for a refusal, which is not shown "
            f"because it is hidden; correct it, or add how it refuses to `refusals` of {capability.name}"
        )
    if len(items) <= capability.hidden_items:
        raise InvalidInput(
            f"{path}: expected more than the {capability.hidden_items} hidden items of one period, found {len(items)}; "
            "add items, or lower hidden_items"
        )
    lines, secret = [line.strip().encode() for _, line in read_lines(path, content)], secret_of_rotation()
    places = draw(lines, capability.hidden_items, secret, period, capability.name)
    drawn = b"\n".join(lines[place] for place in places)
    covered = FileDigest(
        path=f"{capability.name}/{capability.hidden}", sha256=keyed(secret, drawn), size=capability.hidden_items
    )
    return tuple(items[place] for place in places), covered


class _Capability(Frozen):
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    scorer: Scorer
    items: Text
    margin: float = Field(gt=0, le=1)
    weight: float = Field(default=1.0, gt=0, le=1000)
    refusals: tuple[Text, ...] = ()
    hidden: Text | None = None
    hidden_items: int = Field(default=0, ge=0, strict=True)
    first: int | None = Field(default=None, ge=1, strict=True)
    metric: str = ""

    @model_validator(mode="after")
    def _the_harness_scores_its_own_tasks(self) -> "_Capability":
        theirs = self.scorer == "lm_eval"
        if self.items.startswith(HARNESS) != theirs:
            raise ValueError(f"expected scorer lm_eval with items {HARNESS}TASK, found one of them")
        if theirs and self.hidden is not None:
            raise ValueError("expected hidden items of a file, found those of a task, which everybody knows")
        if not theirs and (self.first is not None or self.metric):
            raise ValueError("expected first and metric with scorer lm_eval only")
        return self

    @model_validator(mode="after")
    def _phrases_for_refusals(self) -> "_Capability":
        if self.refusals and self.scorer != "refusal":
            raise ValueError("expected refusals with scorer refusal only")
        return self

    @model_validator(mode="after")
    def _hidden_with_their_number(self) -> "_Capability":
        if (self.hidden is None) != (self.hidden_items == 0):
            raise ValueError("expected hidden and hidden_items together, found one of them")
        return self


class _Head(Frozen):
    name: Text
    capabilities: tuple[_Capability, ...] = Field(min_length=1)
    chat: bool = False
    licence: str = ""
    description: str = ""
    lm_eval_tasks: Text | None = None
    rotates_every_days: int | None = Field(default=None, ge=1, le=3660, strict=True)

    @model_validator(mode="after")
    def _rotates_what_is_hidden(self) -> "_Head":
        if any(c.hidden for c in self.capabilities) != (self.rotates_every_days is not None):
            raise ValueError("expected rotates_every_days with hidden items and not without, found one of them")
        return self

    @model_validator(mode="after")
    def _names_once(self) -> "_Head":
        names = [c.name for c in self.capabilities]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"expected each capability once, found {twice} again")
        return self


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
    return shaped(_Head, found, str(path))


def _inside(suite: Path, items: str) -> Path:
    path = suite.parent / items
    if Path(items).is_absolute() or not path.resolve().is_relative_to(suite.parent.resolve()):
        raise InvalidInput(f"{suite}: expected item files inside the suite's folder, found {items!r}; move them there")
    return path


def _benchmark(capability: _Capability, chat: bool, path: Path, content: bytes) -> Benchmark:
    items = read_items(capability.scorer, path, content)
    if not items:
        raise InvalidInput(f"{path}: expected at least one item, found an empty file; add items or drop the capability")
    unlike = _not_refusing(capability, items)
    if unlike:
        raise InvalidInput(
            f"{path}: expected answers that refuse, found {unlike[0].reference!r:.80}, which the judge does not take for a refusal; "
            f"correct it, or add how it refuses to `refusals` of {capability.name}"
        )
    return Benchmark(
        capability.name,
        capability.scorer,
        items,
        capability.margin,
        chat,
        sandbox.passes if capability.scorer == "code" else None,
        phrases=capability.refusals,
        weight=capability.weight,
    )


def _not_refusing(capability: "_Capability", items: tuple[Item, ...]) -> list[Item]:
    """Items of a refusal's capability whose reference the judge would not know for one."""
    judge = Judge(capability.refusals)
    return [item for item in items if not judge.refuses(item.reference)] if capability.scorer == "refusal" else []
