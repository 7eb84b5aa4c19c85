"""Stand-ins for what lies outside, holding real state."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import (
    Action,
    DescriptionBlock,
    RemoveAlias,
    RemoveTag,
    RunRecord,
    SetAlias,
    SetStage,
    SetTag,
    with_block,
)
from gate.domain.errors import NotFound, Unavailable
from gate.domain.promotion import NO_STAGE, Holding


@dataclass
class FakeClock:
    """Time that moves only when told."""

    now: float = 1_795_376_900.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRegistry:
    """A model registry in memory. ``away`` makes it unreachable; ``fail_after`` cuts it off after so many writes."""

    held: dict[tuple[str, str], ModelVersion] = field(default_factory=dict)
    pointers: dict[tuple[str, str], str] = field(default_factory=dict)
    runs: dict[str, RunRecord] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    disguised: set[str] = field(default_factory=set)
    listed: dict[str, Mapping[str, int]] = field(default_factory=dict)
    webhook: tuple[str, str] | None = None
    away: bool = False
    fail_after: int | None = None

    def add(self, version: ModelVersion) -> ModelVersion:
        self.held[version.name, version.version] = version
        return version

    def version(self, name: str, version: str) -> ModelVersion:
        self._answer()
        try:
            found = self.held[name, version]
        except KeyError:
            raise NotFound(f"no version {version} of {name!r}") from None
        aliases = tuple(a for (model, a), number in self.pointers.items() if (model, number) == (name, version))
        return found.model_copy(update={"aliases": aliases})

    def versions(self, since_ms: int = 0) -> Iterable[ModelVersion]:
        self._answer()
        found = [
            self.version(*key) for key, v in self.held.items() if v.created_ms >= since_ms and key[0] not in self.hidden
        ]
        return sorted(found, key=lambda v: -v.created_ms)

    def hidden_versions(self) -> Iterable[ModelVersion]:
        self._answer()
        return [self.version(*key) for key in self.held if key[0] in self.hidden]

    def versions_page(self, cursor: str) -> tuple[Sequence[ModelVersion], str]:
        return list(self.versions())[::-1], ""

    def holdings(self, cursor: str) -> tuple[Mapping[str, Sequence[Holding]], str]:
        self._answer()
        found: dict[str, list[Holding]] = {name: [] for name, _ in self.held}
        for (name, alias), number in self.pointers.items():
            found[name].append(Holding(name, "alias", alias, number))
        newest = {(v.name, v.stage): v.version for v in sorted(self.held.values(), key=lambda v: int(v.version))}
        for (name, stage), number in newest.items():
            if stage != NO_STAGE:
                found[name].append(Holding(name, "stage", stage, number))
        for name in found:
            newest_number = max((v for model, v in self.held if model == name), key=int)
            found[name].append(Holding(name, "model", name, newest_number))
        return found, ""

    def has_files(self, version: ModelVersion) -> bool:
        self._answer()
        return version.name in self.disguised

    def alias_of(self, name: str, alias: str) -> str | None:
        self._answer()
        return self.pointers.get((name, alias))

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        raise NotFound(f"no files of {version.uri}")

    def listing(self, version: ModelVersion) -> Mapping[str, int] | None:
        self._answer()
        return self.listed.get(version.version)

    def write_run(self, record: RunRecord) -> str:
        self._write()
        self.runs[record.key] = record
        return f"run-{list(self.runs).index(record.key)}"

    def run_url(self, run_id: str) -> str:
        return f"http://mlflow/runs/{run_id}"

    def apply(self, version: ModelVersion, actions: Sequence[Action]) -> None:
        for action in actions:
            self._write()
            self._apply(self.version(version.name, version.version), action)

    def _apply(self, now: ModelVersion, action: Action) -> None:
        match action:
            case SetTag(key, value):
                self.add(now.model_copy(update={"tags": {**now.tags, key: value}}))
            case DescriptionBlock():
                self.add(now.model_copy(update={"description": with_block(now.description, action)}))
            case SetAlias(alias):
                self.pointers[now.name, alias] = now.version
            case RemoveAlias(alias):
                self.pointers.pop((now.name, alias), None)
            case RemoveTag(key, value):
                kept = {k: v for k, v in now.tags.items() if (k, v) != (key, value)}
                self.add(now.model_copy(update={"tags": kept}))
            case SetStage(stage):
                self.add(now.model_copy(update={"stage": stage}))

    def ensure_webhook(self, url: str, secret: str, *, renew_secret: bool = False) -> str:
        self._answer()
        before, self.webhook = self.webhook, (url, secret)
        return "created" if before is None else "kept" if before[0] == url else "repaired"

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("the registry is away")

    def _write(self) -> None:
        self._answer()
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise Unavailable("the registry was cut off")
            self.fail_after -= 1


@dataclass
class FakeQueue:
    """Remembers the doorbells it was asked to ring."""

    rung: list[tuple[str, str, str]] = field(default_factory=list)
    away: bool = False

    def ring(self, queue: str, kind: str, key: str) -> None:
        if self.away:
            raise Unavailable("the broker is away")
        self.rung.append((queue, kind, key))
