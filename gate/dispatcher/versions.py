"""Versions compared with the ledger: what nobody told of is asked for, a verdict that somebody changed is written again.

The ledger is asked about many versions at once, and about none whose tags are those that were found right before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import structlog

from gate.adapters import tracing
from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.standing import Standing
from gate.domain.checkpoint import Base, ModelVersion
from gate.domain.enforcement import NO_ATTESTATION, TAG_ATTESTATION, TAG_REVOKED, TAG_VERDICT, attestation_text
from gate.domain.evaluation import EvaluationRequest, evaluation_key, request_for
from gate.domain.records import Kept
from gate.domain.reopening import occasion_for

AT_ONCE = 200
"""So many versions are looked up in the ledger by one query."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Open:
    """A version that is not known to be as it should: the key of its first evaluation, and what its tags say now."""

    root: str
    version: ModelVersion
    shown: int


class VersionWatch:
    """Compares versions as the registry shows them with what the ledger keeps of them."""

    def __init__(self, standing: Standing, clock: Callable[[], float], metrics: DispatcherMetrics) -> None:
        self._standing, self._clock, self._metrics = standing, clock, metrics
        self._sound: dict[str, int] = {}
        self._bases: Sequence[Base] = ()

    def compare(self, versions: Iterable[ModelVersion]) -> None:
        """Have each version evaluated that is for the gate, and each verdict written that does not show."""
        bases = self._standing.ledger.bases()
        if bases != self._bases:
            # What was found sound was so with the bases of then.
            self._sound, self._bases = {}, bases
        for some in _in_groups(versions):
            self._settle([each for version in some for each in self._open(version)], bases)

    def _open(self, version: ModelVersion) -> Iterator[Open]:
        policy = self._standing.policy(version)
        if policy is None:
            return
        root, shown = evaluation_key(version.identity, policy.digest), _shown(version)
        if self._sound.get(root) != shown:
            yield Open(root, version, shown)

    def _settle(self, unsettled: Sequence[Open], bases: Sequence[Base]) -> None:
        kept = self._standing.ledger.kept([each.root for each in unsettled]) if unsettled else {}
        for each in unsettled:
            request = request_for(each.version, self._standing.policy(each.version), bases)
            if request is None:
                continue
            if (found := kept.get(each.root)) is None:
                self._ask(request)
            elif found.written and not self._reopened(request, found, bases):
                self._mend(each, found)

    def _reopened(self, request: EvaluationRequest, kept: Kept, bases: Sequence[Base]) -> bool:
        """Whether the version is to be evaluated again, because of what its base or suite has become since its verdict."""
        occasion = occasion_for(kept.against, bases) if kept.against else None
        if occasion is None:
            return False
        again = request.again(occasion)
        with tracing.span("reopen", root=True, evaluation=again.key) as begun:
            if self._standing.ledger.request_evaluation(again, self._clock()):
                self._metrics.reopened_verdicts.inc(exemplar=tracing.exemplar())
                log.info(
                    "verdict opened again", version=again.version.uri, evaluation=again.key, reason=occasion.reason
                )
            else:
                begun.forget()
        return True

    def _ask(self, request: EvaluationRequest) -> None:
        with tracing.span("reconcile", root=True, evaluation=request.key) as begun:
            if self._standing.ledger.request_evaluation(request, self._clock()):
                self._metrics.missed_versions.inc(exemplar=tracing.exemplar())
                log.info("version found by the reconciler", version=request.version.uri, evaluation=request.key)
            else:
                begun.forget()

    def _mend(self, each: Open, kept: Kept) -> None:
        """Have a verdict written again whose tags were changed or deleted by somebody else."""
        revoked = self._standing.ledger.revocation(each.version.identity, None) is not None
        if _as_written(each.version, kept, revoked):
            self._sound[each.root] = each.shown
            return
        self._standing.ledger.project(kept.key, self._clock())
        detail = {"version": each.version.identity}
        self._standing.ledger.audit("projection mended", "dispatcher", detail, self._clock())


def _as_written(version: ModelVersion, kept: Kept, revoked: bool) -> bool:
    """Whether the tags say what the ledger does; the attestation byte for byte, an older one would not do."""
    if version.tags.get(TAG_VERDICT) != kept.outcome or (revoked and TAG_REVOKED not in version.tags):
        return False
    if revoked or kept.summary is None:
        return version.tags.get(TAG_ATTESTATION) == NO_ATTESTATION
    return version.tags.get(TAG_ATTESTATION) == attestation_text(kept.summary)


def _shown(version: ModelVersion) -> int:
    return hash(tuple(version.tags.get(tag) for tag in (TAG_VERDICT, TAG_ATTESTATION, TAG_REVOKED)))


def _in_groups(versions: Iterable[ModelVersion]) -> Iterator[Sequence[ModelVersion]]:
    rest = iter(versions)
    while some := list(islice(rest, AT_ONCE)):
        yield some
