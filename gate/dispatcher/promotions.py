"""Who holds the protected aliases and stages, compared with who may: kept in mind, reported, by policy undone."""

from collections.abc import Callable, Iterator
from enum import StrEnum

import structlog

from gate.adapters.ledger_metrics import CHANGED, DRIFTED, EXPIRY
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.signing import Verifier
from gate.adapters.standing import Standing, referenced
from gate.dispatcher.fingerprints import Fingerprints
from gate.domain.attestation import PAYLOAD_TYPE, read_summary
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, RemoveAlias, SetAlias
from gate.domain.errors import GateError, NotFound
from gate.domain.permission import Answer
from gate.domain.policy import Policy
from gate.domain.promotion import protects_alias, same_name
from gate.domain.reference import parse_reference
from gate.domain.verdict import Outcome
from gate.ports import EvaluationRow, Registry

PAGE = 500
log = structlog.get_logger(__name__)


class Drift(StrEnum):
    """How a promoted version came to be without an approval in force."""

    BYPASSED = "promoted without approval"
    WITHDRAWN = "promoted on an approval that a later verdict withdrew"
    EXPIRED = "promoted on an approval that expired"


class PromotionWatch:
    """Looks at every protected alias and stage; moves an alias only where a policy says so."""

    def __init__(
        self,
        standing: Standing,
        registry: Registry,
        clock: Callable[[], float],
        metrics: DispatcherMetrics,
        verifier: Verifier | None = None,
    ) -> None:
        self._standing, self._registry, self._clock = standing, registry, clock
        self._metrics, self._verifier = metrics, verifier
        self._reported: set[tuple[str, str, str]] = set()
        self._kept: dict[tuple[str, str], str] = {}
        self._fingerprints = Fingerprints(standing, registry)

    def look(self, *, stages: bool) -> None:
        """One look: in order is kept in mind, drift is undone where it may be, what remains is counted and told once."""
        held = list(self._aliases())
        drifted = sum(self._drifts("alias", alias, version) for alias, version in held)
        if stages:
            drifted += sum(self._drifts("stage", version.stage, version) for version in self._staged())
        promoted = {version.identity: version for _, version in held}.values()
        changed = sum(self._changed(version) for version in promoted)
        now = self._clock()
        ends = [end for version in promoted if (end := self._standing.approved_until(version, now))]
        figures = {DRIFTED: drifted, CHANGED: changed, EXPIRY: min(ends, default=None)}
        self._standing.ledger.keep_figures(figures, now)

    def _changed(self, version: ModelVersion) -> bool:
        """Whether a promoted version's files are others than those judged; each set of differences is told once."""
        different = ", ".join(self._fingerprints.differences(version))
        fact = ("files", different, version.identity)
        if different and fact not in self._reported:
            self._reported.add(fact)
            log.warning("artifacts changed after the verdict", version=version.uri, files=different)
            self._audit("artifacts changed after the verdict", {"version": version.identity, "files": different})
        return bool(different)

    def _aliases(self) -> Iterator[tuple[str, ModelVersion]]:
        for (name, alias), number in self._registry.aliases().items():
            if self._standing.guards_alias(alias):
                try:
                    version = self._registry.version(name, number)
                except NotFound:
                    continue
                if not version.is_prompt:
                    yield alias, version

    def _staged(self) -> Iterator[ModelVersion]:
        return (v for v in self._registry.versions() if self._standing.guards_stage(v.stage))

    def _drifts(self, kind: str, place: str, version: ModelVersion) -> bool:
        """Whether a version is, and remains, somewhere that it has no approval for."""
        answer = self._standing.answer(version, self._clock())
        drift = self._drift(version, answer)
        if drift is None:
            if kind == "alias" and answer.outcome is Outcome.APPROVED:
                self._keep(place, version)
            return False
        fact = (kind, place, version.identity)
        if fact not in self._reported:
            self._reported.add(fact)
            log.warning(drift.value, **{kind: place}, version=version.uri, reason=answer.reason)
            self._audit(drift.value, {kind: place, "version": version.identity})
        return not (kind == "alias" and self._undone(drift, place, version))

    def _drift(self, version: ModelVersion, answer: Answer) -> Drift | None:
        if answer.allowed:
            return None
        if answer.outcome is Outcome.APPROVED:
            return Drift.EXPIRED
        before = any(row.outcome == Outcome.APPROVED for row in self._evaluations(version))
        # While it is judged anew under a changed policy, and while a copy is judged, the guard lets the approval that
        # there is count; so does a gate that lost its ledger.
        if answer.outcome is None and (before or self._attested(version) or self._copied(version)):
            return None
        return Drift.WITHDRAWN if before else Drift.BYPASSED

    def _keep(self, alias: str, version: ModelVersion) -> None:
        place = (version.name, alias)
        if self._kept.get(place) != version.identity:
            self._standing.ledger.save_promotion(alias, version, self._clock())
            self._kept[place] = version.identity

    def _undone(self, drift: Drift, alias: str, version: ModelVersion) -> bool:
        policy = self._standing.policy(version)
        if policy is None or self._standing.request(version) is None or policy.enforcement != "enforce":
            return False
        if drift is Drift.BYPASSED and policy.on_bypass == "restore" and protects_alias(policy, alias):
            return self._attempt(lambda: self._restore(alias, version), alias, version)
        if drift is Drift.EXPIRED and _is_the_gates_own(policy, alias):
            return self._attempt(lambda: self._take_off(alias, version, "expired"), alias, version)
        return False

    def _restore(self, alias: str, version: ModelVersion) -> str:
        target = self._last_approved(version.name, alias)
        if target is None:
            return self._take_off(alias, version, "removed")
        self._registry.apply(target, (SetAlias(alias),))
        return "restored"

    def _take_off(self, alias: str, version: ModelVersion, result: str) -> str:
        self._registry.apply(version, (RemoveAlias(alias),))
        return result

    def _attempt(self, act: Callable[[], str], alias: str, version: ModelVersion) -> bool:
        """The other aliases must not wait for one that the registry refuses to move; it stays counted as drift."""
        try:
            result = act()
        except GateError as error:
            log.warning("alias could not be moved", alias=alias, version=version.uri, error=str(error))
            self._metrics.failed_reverts.inc()
            return False
        # Should it be moved there again, that is another fact, to be told again.
        self._reported.discard(("alias", alias, version.identity))
        log.warning("alias moved by the gate", alias=alias, version=version.uri, result=result)
        self._audit(f"alias {result}", {"alias": alias, "version": version.identity})
        return True

    def _last_approved(self, name: str, alias: str) -> ModelVersion | None:
        kept = self._standing.ledger.promotion(name, alias)
        if kept is None:
            return None
        try:
            now = self._registry.version(kept.name, kept.version)
        except NotFound:
            return None
        same = now.identity == kept.identity
        return now if same and self._approved(now) else None

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
        return summary.refusal(version.identity, int(self._clock())) is None

    def _copied(self, version: ModelVersion) -> bool:
        """Whether it says to be a copy of an approved version. Its own verdict will tell; until then it may stay."""
        try:
            origin = referenced(self._registry, parse_reference(version.source))
        except GateError:
            return False
        earlier = origin.created_ms <= version.created_ms
        return earlier and self._approved(origin)

    def _approved(self, version: ModelVersion) -> bool:
        """Whether it has an approval in force; being allowed in dry run is none."""
        answer = self._standing.answer(version, self._clock())
        return answer.allowed and answer.outcome is Outcome.APPROVED

    def _audit(self, event: str, detail: dict[str, str]) -> None:
        self._standing.ledger.audit(event, "dispatcher", detail, self._clock())


def _is_the_gates_own(policy: Policy, alias: str) -> bool:
    return policy.on_approved.alias is not None and same_name(alias, policy.on_approved.alias)
