"""What a reader without the ledger knows of revocations: the mark on the version, and the list it was given."""

from dataclasses import dataclass
from pathlib import Path

from gate.adapters.signing import Opener
from gate.domain.attestation import instant
from gate.domain.errors import GateError, InvalidInput
from gate.domain.revocation import REVOCATIONS_TYPE, RevocationList, read_revocations

UNREADABLE_MARK = (
    "it carries a mark of revocation (tag gate.revoked) that no trusted key signed; whoever may write gate.* tags "
    "can remove it"
)


def opened(verifier: Opener, envelope: str | bytes) -> RevocationList:
    """The list of an envelope. Raises `Unverified` or `InvalidInput`."""
    return read_revocations(verifier.open(envelope, REVOCATIONS_TYPE))


def listed(verifier: Opener, file: Path) -> RevocationList:
    """The list of a file; every failure is `GateError` and names the file."""
    try:
        return opened(verifier, file.read_bytes())
    except OSError as error:
        raise InvalidInput(
            f"{file}: expected a readable list of revocations, found: {error.strerror}; issue one with: "
            "basin-gate revocations, or check GATE_REVOCATIONS_FILE"
        ) from error
    except GateError as error:
        raise type(error)(f"{file}: {error}") from error


def marked(verifier: Opener, mark: str | None, identity: str, candidate_digest: str | None) -> str | None:
    """Why a version with this tag ``gate.revoked`` is no approved one, or ``None`` where it has no such tag.

    A mark that cannot be read refuses too; one that was signed for another version only says nothing.
    """
    if mark is None:
        return None
    try:
        entry = opened(verifier, mark).of(identity, candidate_digest)
    except GateError:
        return UNREADABLE_MARK
    return entry.sentence if entry else None


@dataclass(frozen=True, slots=True)
class KnownRevocations:
    """A list of revocations, or none: then only marks are known."""

    known: RevocationList | None = None

    def refusal(self, identity: str, candidate_digest: str | None, now: int) -> str | None:
        """Why an approval of this version and these bytes does not count, or ``None``."""
        if self.known is None:
            return None
        entry = self.known.of(identity, candidate_digest)
        return entry.sentence if entry else self.known.staleness(now)

    @property
    def note(self) -> str:
        """What can be said of revocations, and what cannot."""
        if self.known is None:
            return "no list of revocations was given, so one made since cannot be known here"
        return f"not among the {len(self.known.entries)} revocations known at {instant(self.known.issued_at)}"
