"""What a sweep of the reconciler asks for: it grows with what changed, not with the registry, and misses nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from builders import a_version
from fakes import FakeClock, FakeQueue, FakeRegistry

from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.dispatcher import Dispatcher
from gate.domain.checkpoint import ModelVersion
from gate.domain.promotion import Holding
from gate.settings import Settings

SWEEPS = 3
"""Within so many sweeps everything is met again: three quarters of a minute."""
PER_PAGE = 10
PAGES = 12


@dataclass
class PagedRegistry(FakeRegistry):
    """Gives versions out page by page, as MLflow does, and counts what it is asked for."""

    calls: Counter[str] = field(default_factory=Counter)

    def version(self, name: str, version: str) -> ModelVersion:
        self.calls["version"] += 1
        return self._one(name, version)

    def _one(self, name: str, version: str) -> ModelVersion:
        return super().version(name, version)

    def versions(self, since_ms: int = 0) -> Sequence[ModelVersion]:
        self.calls["recent"] += 1
        return [v for v in self.held.values() if v.created_ms >= since_ms]

    def versions_page(self, cursor: str) -> tuple[Sequence[ModelVersion], str]:
        self.calls["page"] += 1
        begin = int(cursor or 0)
        found = sorted(self.held.values(), key=lambda v: v.created_ms)
        end = begin + PER_PAGE
        return found[begin:end], str(end) if end < len(found) else ""

    def holdings(self, cursor: str) -> tuple[Mapping[str, Sequence[Holding]], str]:
        self.calls["holdings"] += 1
        return super().holdings(cursor)


@dataclass
class Swept:
    """A dispatcher beside a registry, and how many calls each of its sweeps made."""

    ledger: SqlLedger
    registry: PagedRegistry = field(default_factory=PagedRegistry)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        settings = Settings(reconcile_every_s=15)
        self.dispatcher = Dispatcher(
            self.ledger, FakeQueue(), self.registry, load_policies(), settings, clock=self.clock
        )

    def fill(self, versions: int) -> None:
        """So many registered models of one version each, made long ago, each with a champion."""
        for number in range(versions):
            name = f"team-{number}"
            self.registry.add(a_version(name=name, version="1", created_ms=1000 + number))
            self.registry.pointers[name, "champion"] = "1"

    def sweep(self, times: int = 1) -> Counter[str]:
        self.registry.calls.clear()
        for _ in range(times):
            self.clock.now += 16
            self.dispatcher.step()
        return Counter(self.registry.calls)

    def audited(self, version: ModelVersion) -> list[str]:
        with self.ledger._database.engine.connect() as connection:
            rows = connection.exec_driver_sql("select event, detail from audit order by seq").all()
        return [row.event for row in rows if f'"{version.identity}"' in row.detail]


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[Swept]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    made = Swept(SqlLedger(url))
    yield made
    made.ledger.close()


@pytest.mark.parametrize(("pages", "asked_singly"), [(PAGES, 0), (2 * PAGES, 2 * PAGES * PER_PAGE // SWEEPS)])
def test_a_sweep_with_nothing_changed_reads_no_more_pages_in_a_registry_twice_as_large(
    swept: Swept, pages: int, asked_singly: int
) -> None:
    swept.fill(pages * PER_PAGE)
    swept.sweep(times=SWEEPS + 1)

    for _ in range(SWEEPS):
        calls = swept.sweep()
        assert calls["page"] <= PAGES // SWEEPS
        assert calls["version"] <= asked_singly
        assert (calls["recent"], calls["holdings"]) == (1, 1)


@pytest.mark.parametrize("at", [0, 1060, 10_000])
def test_a_version_inserted_anywhere_in_time_is_met_within_three_quarters_of_a_minute(swept: Swept, at: int) -> None:
    swept.fill(PAGES * PER_PAGE - 1)
    swept.sweep(times=SWEEPS + 1)
    inserted = swept.registry.add(a_version(name="team-0", version="99", created_ms=at, source="s3://evil"))

    swept.sweep(times=SWEEPS)

    assert swept.audited(inserted) == ["evaluation requested"]


@pytest.mark.parametrize("number", [1, 60, 119])
def test_a_champion_that_became_another_version_under_its_number_is_told_within_three_quarters_of_a_minute(
    swept: Swept, number: int
) -> None:
    swept.fill(PAGES * PER_PAGE)
    swept.sweep(times=SWEEPS + 1)
    now = swept.registry.held[f"team-{number}", "1"].model_copy(update={"source": "s3://evil"})
    swept.registry.add(now)

    calls = swept.sweep(times=SWEEPS)

    assert "promoted without approval" in swept.audited(now)
    assert calls["version"] == 0


def test_a_champion_that_no_search_shows_is_looked_at_by_itself_in_turn(swept: Swept) -> None:
    swept.fill(PAGES * PER_PAGE)
    page = swept.registry.versions_page
    swept.registry.versions_page = lambda cursor: ([v for v in page(cursor)[0] if v.name != "team-7"], page(cursor)[1])
    swept.sweep(times=SWEEPS + 1)
    now = swept.registry.held["team-7", "1"].model_copy(update={"source": "s3://evil"})
    swept.registry.add(now)

    calls = swept.sweep(times=SWEEPS)

    assert "promoted without approval" in swept.audited(now)
    assert calls["version"] == 1
