"""Taking approvals back: what an operator's command and a worker that found changed bytes both do."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.records import SignedRevocation
from gate.domain.revocation import REASON_CHARACTERS, REVOCATIONS_TYPE, Revocation, revocation_list
from gate.ports import Ledger, Signer

PAGE = 500
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Revoker:
    """Signs revocations and hands them to the ledger, whose outbox has them written to the registry."""

    ledger: Ledger
    signer: Signer
    clock: Callable[[], float] = time.time

    def revoke(self, version: ModelVersion, reason: str, actor: str) -> tuple[ModelVersion, ...]:
        """Takes back the approval of a version and of every version with the same bytes; which those are."""
        said = " ".join(reason.split())
        if not said:
            raise InvalidInput("expected a reason for the revocation, found none; everybody who is refused reads it")
        digest = self._judged(version)
        same = {v.identity: v for v in (version, *(self.ledger.versions_of(digest) if digest else ()))}
        self._keep(tuple(same.values()), digest, said, actor)
        return tuple(same.values())

    def void(self, version: ModelVersion, reason: str, actor: str) -> None:
        """Takes back the approval of this version alone: its bytes are no longer those that were judged."""
        self._keep((version,), None, reason, actor)

    def listed(self, days: int | None) -> dict[str, object]:
        """Every revocation in one signed envelope, for readers without the ledger; for ever unless ``days`` are given."""
        now = int(self.clock())
        until = None if days is None else now + days * SECONDS_A_DAY
        return dict(self.signer.sign(revocation_list(self.ledger.revocations(), now, until), REVOCATIONS_TYPE))

    def _judged(self, version: ModelVersion) -> str | None:
        """The digest of the bytes that any verdict on the version speaks of."""
        asked, offset = False, 0
        while rows := self.ledger.evaluations(PAGE, offset, name=version.name):
            for row in rows:
                if row.request.version.identity != version.identity:
                    continue
                asked = True
                kept = self.ledger.verdict(row.request.key)
                if kept is not None and kept[0].candidate_digest is not None:
                    return kept[0].candidate_digest
            offset += PAGE
        if not asked:
            raise InvalidInput(
                f"expected an evaluation of {version.uri}, found none; what was never evaluated has no approval"
            )
        return None

    def _keep(self, versions: tuple[ModelVersion, ...], digest: str | None, reason: str, actor: str) -> None:
        now = int(self.clock())
        given = []
        for version in versions:
            entry = Revocation(
                subject=version.identity,
                candidate_digest=digest,
                reason=reason[:REASON_CHARACTERS],
                revoked_at=now,
            )
            envelope = self.signer.sign(revocation_list([entry], now), REVOCATIONS_TYPE)
            given.append(SignedRevocation(version, entry, envelope))
        self.ledger.revoke(given, actor, now)
