"""The ledger counted for metrics: what is computed here survives every restart and counts nothing twice.

What has ended is never taken back, so its numbers only grow, as counters must.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import ledger_controls, ledger_glass, ledger_tallies, ledger_waivers, tracing
from gate.adapters.database import put
from gate.adapters.ledger_audit import FAILED_OPEN
from gate.adapters.ledger_tables import audit, evaluation, figure
from gate.domain.records import Statistics, Tally, TracedVerdict

BYPASSES = {
    "promoted without approval": "unapproved",
    "promoted on an approval that was revoked": "revoked",
    "promoted on an approval that a later verdict withdrew": "withdrawn",
    "promoted on an approval that expired": "expired",
    "promoted by breaking the glass, which is over": "break_glass",
}
REVERTS = {f"{kind} {result}": result for kind in ("alias", "stage") for result in ("restored", "removed", "expired")}
REPAIRS = {"webhook created": "created", "webhook repaired": "repaired"}
OPENINGS = {FAILED_OPEN: "unmeasured"}
_TOLD = (*BYPASSES, *REVERTS, *REPAIRS, *OPENINGS)
_NOTHING = Tally({}, 0, 0.0)


class Facts:
    """What the audit log tells, counted as it grows: entries are appended in order and never change."""

    def __init__(self) -> None:
        self._seen = 0
        self._counts: Counter[str] = Counter()
        self._outstanding: set[tuple[str, str, str]] = set()
        self._webhook_made = False
        self._lock = threading.Lock()

    def counts(self, c: sa.Connection) -> Mapping[str, int]:
        """How often each fact came about."""
        with self._lock:
            last = c.execute(sa.select(sa.func.max(audit.c.seq))).scalar() or 0
            # Oldest first: whether an entry tells something new depends on those before it.
            new = audit.c.seq > self._seen, audit.c.seq <= last, audit.c.event.in_(_TOLD)
            told = sa.select(audit.c.event, audit.c.detail).where(*new).order_by(audit.c.seq)
            for event, detail in c.execute(told).all():
                self._take(event, json.loads(detail))
            self._seen = last
            return dict(self._counts)

    def _take(self, event: str, detail: Mapping[str, Any]) -> None:
        place = (str(detail.get("alias") or detail.get("stage")), str(detail.get("version")))
        if event in BYPASSES:
            # A dispatcher that was restarted tells again of what it finds still there; that is the same bypass.
            self._counts[event] += (event, *place) not in self._outstanding
            self._outstanding.add((event, *place))
        elif event in OPENINGS:
            self._counts[event] += 1
        elif event in REVERTS:
            self._counts[event] += 1
            self._outstanding = {fact for fact in self._outstanding if fact[1:] != place}
        else:
            # The first webhook is how a gate begins; each one made after it replaces one that somebody deleted.
            self._counts[event] += event != "webhook created" or self._webhook_made
            self._webhook_made = True


def statistics(c: sa.Connection, facts: Facts, now: float) -> Statistics:
    """Everything that is counted, from one snapshot."""
    found, newest = ledger_tallies.sums(c)
    runs = ledger_tallies.counts(found, ledger_tallies.RUNS)
    to_verdict = ledger_tallies.spreads(found, ledger_tallies.TO_VERDICT, ledger_tallies.TO_VERDICT_S)
    waivers, waiver_expiry = ledger_waivers.counts(c)
    positions = ledger_tallies.spreads(found, ledger_tallies.POSITION, ledger_tallies.POSITIONS)
    return Statistics(
        runs={_pair(label): count for label, count in runs.items()},
        waits=ledger_tallies.spreads(found, ledger_tallies.WAITS, ledger_tallies.WAIT_S),
        run_seconds=ledger_tallies.spreads(found, ledger_tallies.RUN_SECONDS, ledger_tallies.RUN_S),
        compute_s=ledger_tallies.totals(found, ledger_tallies.COMPUTE),
        outcomes=ledger_tallies.counts(found, ledger_tallies.OUTCOMES),
        would_be=ledger_tallies.counts(found, ledger_tallies.WOULD_BE),
        to_verdict=to_verdict.get("", _NOTHING),
        basin_positions=positions.get("", _NOTHING),
        oldest_open_s=_oldest_open(c, now),
        facts=facts.counts(c),
        figures=_figures(c),
        controls=ledger_controls.counts(c),
        waivers=waivers,
        waiver_expiry=waiver_expiry,
        glasses=ledger_glass.counts(c, now),
        traces=tuple(_traces(newest)),
    )


def keep(c: sa.Connection, figures: Mapping[str, float | None], now: float) -> None:
    """Keeps the newest value of each figure."""
    for name, value in figures.items():
        put(c, figure, {"name": name, "value": value, "at": now})


def _figures(c: sa.Connection) -> Mapping[str, float]:
    rows = c.execute(sa.select(figure.c.name, figure.c.value).where(figure.c.value.is_not(None)))
    return {row.name: row.value for row in rows}


def _pair(label: str) -> tuple[str, str]:
    kind, _, outcome = label.partition("/")
    return kind, outcome


def _oldest_open(c: sa.Connection, now: float) -> float:
    oldest = sa.select(sa.func.min(evaluation.c.created_at)).where(evaluation.c.outcome.is_(None))
    since = c.execute(oldest).scalar()
    return 0.0 if since is None else max(0.0, now - since)


def _traces(newest: Sequence[sa.Row[Any]]) -> Iterator[TracedVerdict]:
    for row in newest:
        if row.trace is not None and row.ended_at is not None:
            yield TracedVerdict(row.ended_at, row.ended_at - row.created_at, str(tracing.trace_id_of(row.trace)))
