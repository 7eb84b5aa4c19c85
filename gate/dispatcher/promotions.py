"""Who holds the protected aliases and stages, compared with who may: kept in mind, reported, by policy undone.

A holding that is new, or whose version is found to be another under the same number, is looked at in the same sweep;
one that stays as it was again in turns. The versions that the sweep reads anyway are not asked for once more.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from gate.adapters.ledger_metrics import CHANGED, DRIFTED, EXPIRY
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.signing import Verifier
from gate.adapters.standing import Position, Standing, referenced
from gate.dispatcher.fingerprints import Fingerprints
from gate.dispatcher.holders import Holders
from gate.dispatcher.notices import of_drift, tell
from gate.dispatcher.rehashing import Rehashing
from gate.dispatcher.restoring import Restorer
from gate.domain.attestation import PAYLOAD_TYPE, read_summary
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION
from gate.domain.errors import GateError, NotFound
from gate.domain.overview import EvaluationRow
from gate.domain.policy import Policy
from gate.domain.promotion import Holding, mode_of, same_name
from gate.domain.reference import parse_reference
from gate.domain.verdict import Outcome
from gate.ports import Registry

PAGE = 500
TURNS = 3
"""In so many sweeps each holding that stays as it was is looked at again."""
ALL_AT_ONCE = 100
"""Up to so many holdings are all looked at in each sweep."""
log = structlog.get_logger(__name__)


class Drift(StrEnum):
    """How a promoted version came to be without an approval in force."""

    BYPASSED = "promoted without approval"
    REVOKED = "promoted on an approval that was revoked"
    WITHDRAWN = "promoted on an approval that a later verdict withdrew"
    EXPIRED = "promoted on an approval that expired"
    UNBROKEN = "promoted by breaking the glass, which is over"


UNDONE = (Drift.BYPASSED, Drift.REVOKED, Drift.UNBROKEN)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found when a holding was last looked at, in which sweep, and the identity of the version.

    ``until``: when its approval in force ends, Unix seconds.
    """

    sweep: int
    version: str
    drifts: bool = False
    differs: bool = False
    until: int | None = None


class PromotionWatch:
    """Looks at who holds protected aliases and stages; changes one only where a policy says so."""

    def __init__(
        self,
        standing: Standing,
        registry: Registry,
        clock: Callable[[], float],
        metrics: DispatcherMetrics,
        verifier: Verifier | None = None,
        *,
        rehash_every_s: float = 0.0,
        budget_s: float = math.inf,
    ) -> None:
        self._standing, self._registry, self._clock, self._verifier = standing, registry, clock, verifier
        self._holders = Holders(standing, registry)
        self._restorer = Restorer(standing, registry, clock, metrics)
        self._rehashing = Rehashing(standing, rehash_every_s)
        self._fingerprints = Fingerprints(standing.ledger, registry)
        self._reported: set[tuple[str, str, str]] = set()
        self._seen: dict[Holding, Seen] = {}
        self._places: set[tuple[str, str]] = set()
        self._passed: dict[tuple[str, str], ModelVersion] = {}
        self._sweep = 0
        self._budget_s = budget_s

    def read(self) -> None:
        """Read who holds what: the beginning of a sweep."""
        self._sweep += 1
        self._holders.read()
        present = set(self._holders.held())
        self._seen = {held: seen for held, seen in self._seen.items() if held in present}
        self._places = {(held.name, held.version) for held in present}
        self._passed = {}

    def passed(self, version: ModelVersion) -> None:
        """Take note of a version that this sweep has read; where it holds a place, it need not be asked for again."""
        place = version.name, version.version
        if place in self._places:
            self._passed[place] = version

    def look(self) -> None:
        """One look: in order is kept in mind, drift is undone where it may be, what remains is counted and told once."""
        for held in (*self._holders.new(self._seen), *self._changed()):
            self._see(held)
        until = self._clock() + self._budget_s
        for held in self._again():
            if self._clock() > until:
                break
            self._see(held)
        self._count()

    def _changed(self) -> Sequence[Holding]:
        """Those whose version is another one than when they were looked at, under the same number."""
        met = ((held, seen, self._passed.get((held.name, held.version))) for held, seen in self._seen.items())
        return [held for held, seen, version in met if version is not None and version.identity != seen.version]

    def _again(self) -> Sequence[Holding]:
        """The ones whose turn it is, in the order in which they were looked at before."""
        turns = 1 if len(self._seen) <= ALL_AT_ONCE else TURNS
        return [held for held, seen in self._seen.items() if self._sweep - seen.sweep >= self._turn(held, turns)]

    def _turn(self, held: Holding, turns: int) -> int:
        """After how many sweeps a holding is looked at again: one whose version was read anyway costs no call."""
        return 1 if (held.name, held.version) in self._passed else turns

    def _see(self, held: Holding) -> None:
        # Taken out and put in again: what was looked at longest ago comes first.
        self._seen.pop(held, None)
        seen = self._examined(held)
        if seen is not None:
            self._seen[held] = seen

    def _count(self) -> None:
        seen = self._seen.values()
        figures = {
            DRIFTED: sum(each.drifts for each in seen),
            CHANGED: len({each.version for each in seen if each.differs}),
            EXPIRY: min((each.until for each in seen if each.until), default=None),
        }
        self._standing.ledger.keep_figures(figures, self._clock())

    def _examined(self, held: Holding) -> Seen | None:
        try:
            version = self._passed.get((held.name, held.version)) or self._registry.version(held.name, held.version)
        except NotFound:
            return None
        # What says it is a prompt has no files. Where it has some, its row was changed in the registry's database.
        if version.is_prompt and not self._registry.has_files(version):
            return Seen(self._sweep, version.identity)
        now = self._clock()
        position = self._standing.position(version, now)
        drifts = self._drifts(held, version, position)
        if drifts is None:
            return None
        differences = ", ".join(self._fingerprints.differences(version, position.row))
        self._rehashing.ask(position, now, differences)
        approved = position.answer.allowed and position.answer.outcome is Outcome.APPROVED
        until = position.verdict.expires_at if approved and position.verdict else None
        return Seen(self._sweep, version.identity, drifts, self._overwritten(version, differences), until)

    def _overwritten(self, version: ModelVersion, different: str) -> bool:
        """Whether a promoted version's files are others than those judged; each set of differences is told once."""
        fact = ("files", different, version.identity)
        if different and fact not in self._reported:
            self._reported.add(fact)
            log.warning("artifacts changed after the verdict", version=version.uri, files=different)
            self._audit("artifacts changed after the verdict", {"version": version.identity, "files": different})
        return bool(different)

    def _drifts(self, held: Holding, version: ModelVersion, position: Position) -> bool | None:
        """Whether a version is somewhere that it has no approval for; ``None`` where that was undone."""
        drift = self._drift(version, position)
        if drift is None:
            # Whoever held it before the glass was broken is who it goes back to.
            if position.answer.outcome is Outcome.APPROVED and held.kind != "model" and not _by_glass(position):
                self._restorer.keep(held, version)
            return False
        fact = (held.kind, held.place, version.identity)
        if fact not in self._reported:
            self._reported.add(fact)
            log.warning(drift.value, place=held.key, version=version.uri, reason=position.answer.reason)
            self._audit(drift.value, {held.kind: held.place, "version": version.identity})
            if position.policy is not None:
                told = of_drift(held, version, drift.value, position.answer.reason)
                tell(self._standing.ledger, position.policy, told, self._clock())
        if not self._undone(drift, held, version, position):
            return True
        # Should it be promoted there again, that is another fact, to be told again.
        self._reported.discard(fact)
        return None

    def _drift(self, version: ModelVersion, position: Position) -> Drift | None:
        answer = position.answer
        if answer.allowed:
            return None
        if self._standing.ledger.revocation(version.identity, None) is not None:
            return Drift.REVOKED
        if position.row is not None and any(
            each.signed for each in self._standing.ledger.glasses(position.row.request.key)
        ):
            return Drift.UNBROKEN
        if answer.outcome is Outcome.APPROVED:
            return Drift.EXPIRED
        before = any(row.outcome == Outcome.APPROVED for row in self._evaluations(version))
        # While it is judged anew under a changed policy, and while a copy is judged, the guard lets the approval that
        # there is count; so does a gate that lost its ledger.
        if answer.outcome is None and (before or self._attested(version) or self._copied(version)):
            return None
        return Drift.WITHDRAWN if before else Drift.BYPASSED

    def _undone(self, drift: Drift, held: Holding, version: ModelVersion, position: Position) -> bool:
        policy, blocked = position.policy, position.answer.outcome is Outcome.BLOCKED
        if policy is None or policy.enforcement != "enforce" or not self._governed(version):
            return False
        if drift in UNDONE and policy.on_bypass == "restore" and _protects(policy, held):
            return self._restorer.restore(held, version)
        if (
            drift in (Drift.WITHDRAWN, Drift.UNBROKEN)
            and blocked
            and policy.on_blocked.restore
            and _protects(policy, held)
        ):
            return self._restorer.restore(held, version)
        if drift in (Drift.EXPIRED, Drift.UNBROKEN) and _is_the_gates_own(policy, held):
            return self._restorer.take_off(held, version)
        return False

    def _governed(self, version: ModelVersion) -> bool:
        """Whether it is for the gate: onboarded bases are not, and what only pretends to be a prompt is."""
        return version.is_prompt or self._standing.request(version) is not None

    def _evaluations(self, version: ModelVersion) -> Iterator[EvaluationRow]:
        offset = 0
        while rows := self._standing.ledger.evaluations(PAGE, offset, name=version.name):
            yield from (row for row in rows if row.request.version.identity == version.identity)
            offset += PAGE

    def _attested(self, version: ModelVersion) -> bool:
        if self._verifier is None or TAG_ATTESTATION not in version.tags:
            return False
        try:
            summary = read_summary(self._verifier.open(version.tags[TAG_ATTESTATION], PAYLOAD_TYPE))
        except GateError:
            return False
        revoked = self._standing.ledger.revocation(version.identity, summary.candidate_digest)
        return revoked is None and summary.refusal(version.identity, int(self._clock())) is None

    def _copied(self, version: ModelVersion) -> bool:
        """Whether it says to be a copy of an approved version. Its own verdict will tell; until then it may stay."""
        try:
            origin = referenced(self._registry, parse_reference(version.source))
        except GateError:
            return False
        return origin.created_ms <= version.created_ms and self._restorer.approved(origin)

    def _audit(self, event: str, detail: dict[str, str]) -> None:
        self._standing.ledger.audit(event, "dispatcher", detail, self._clock())


def _by_glass(position: Position) -> bool:
    return position.verdict is not None and position.verdict.break_glass is not None


def _protects(policy: Policy, held: Holding) -> bool:
    """Whether it is this policy that keeps the place, and more than tells of it. Nothing is undone in a registered model:
    versions are not the gate's to delete."""
    return held.kind != "model" and mode_of(policy, held.kind, held.place) == "enforce"


def _is_the_gates_own(policy: Policy, held: Holding) -> bool:
    own = policy.on_approved.alias
    return held.kind == "alias" and own is not None and same_name(held.place, own)
