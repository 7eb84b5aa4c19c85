"""Proof that files are the approved ones, for whoever is about to serve them; offline, given the public keys.

A loader calls `verified_folder`; a deploy job or an init container runs ``basin-gate verify``.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gate.adapters.folder_digests import DigestCache, folder_digests
from gate.adapters.revocations import KnownRevocations, listed, marked
from gate.adapters.signing import Opener, Verifier
from gate.adapters.standing import referenced
from gate.domain.attestation import PAYLOAD_TYPE, Summary, read_summary
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_REVOKED
from gate.domain.errors import InvalidInput, Unverified
from gate.domain.reference import VersionReference, parse_reference
from gate.domain.verification import ANYTHING, SIDECAR, Demand, Verification, decision_refusals, file_refusals
from gate.ports import Registry
from gate.settings import settings

Envelope = Mapping[str, Any] | str | bytes
"""A DSSE envelope as JSON: the value of a version's tag ``gate.vsa``."""


def verified_folder(
    folder: Path,
    attestation: Envelope | Path | None,
    keys: Path,
    *,
    expect: str = "",
    revocations: Path | None = None,
) -> Summary:
    """The approval of exactly these files. Raises `Unverified` with every reason where there is none in force.

    ``attestation`` is an envelope or a file with one; ``None`` means the folder's own ``basin-gate.vsa.json``.
    ``keys`` is a PEM file of trusted public keys. ``expect`` is the version it must be (``models:/name/version``):
    without it, the files of any approved version pass. ``revocations`` is a signed list of approvals taken back
    (``basin-gate revocations``): without it, one that was taken back passes until it expires.
    """
    demand = Demand(resource=parse_reference(expect).resource if expect else None)
    verifier = Verifier.from_file(keys)
    check = FolderCheck(verifier, demand, revocations=known_revocations(verifier, revocations))
    found = check.folder(folder, attestation)
    if found.summary is None or not found.verified:
        raise Unverified(f"{folder}: " + "; ".join(found.reasons))
    return found.summary


def trusted(keys: Path | None) -> Verifier:
    """What opens attestations: the given file of public keys, else that of the settings."""
    file = keys or settings().trusted_keys_file
    if file is None:
        raise InvalidInput("expected GATE_TRUSTED_KEYS_FILE or --keys, found neither; without a key nothing verifies")
    return Verifier.from_file(file)


def known_revocations(verifier: Verifier, file: Path | None) -> KnownRevocations:
    """The list of a file, where one is given."""
    return KnownRevocations(listed(verifier, file) if file else None)


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """Verifies folders and registered versions against one set of keys and one demand."""

    verifier: Opener
    demand: Demand = ANYTHING
    cache: DigestCache | None = None
    clock: Callable[[], float] = time.time
    revocations: KnownRevocations = field(default_factory=KnownRevocations)

    def folder(self, folder: Path, attestation: Envelope | Path | None = None) -> Verification:
        """Whether an attestation approves the files of a folder."""
        envelope = _envelope(folder / SIDECAR if attestation is None else attestation)
        return self._check(str(folder), envelope, self.demand, lambda: folder)

    def version(self, registry: Registry, asked: VersionReference, into: Path | None = None) -> Verification:
        """Whether a registered version's own attestation approves its files.

        They are fetched first, unless ``into`` holds files already: then those are verified. What was fetched into
        ``into`` and is not approved is removed again; what is approved gets its attestation beside it.
        """
        version = referenced(registry, asked)
        envelope, mark = version.tags.get(TAG_ATTESTATION), version.tags.get(TAG_REVOKED)
        if revoked := marked(self.verifier, mark, version.identity, None):
            return Verification(target=version.uri, reasons=(revoked,))
        if not envelope:
            reason = f"it carries no attestation (tag {TAG_ATTESTATION}); wait for the gate or have it evaluated"
            return Verification(target=version.uri, reasons=(reason,))
        demand = self.demand.model_copy(update={"resource": version.identity})
        with _room(into) as folder:
            fresh = not _holds_files(folder)
            found = self._check(version.uri, envelope, demand, lambda: _fetched(registry, version, folder, fresh))
            _settle(folder, envelope, found, fresh)
        return found

    def _check(self, target: str, envelope: Envelope, demand: Demand, place: Callable[[], Path]) -> Verification:
        """``place`` is asked for the files only where the attestation itself is no reason against them."""
        try:
            summary = read_summary(self.verifier.open(envelope, PAYLOAD_TYPE))
        except (Unverified, InvalidInput) as error:
            return Verification(target=target, reasons=(f"its attestation is not valid: {error}",))
        now = int(self.clock())
        revoked = self.revocations.refusal(summary.resource_uri, summary.candidate_digest, now)
        if refused := (*decision_refusals(summary, demand, now), *([revoked] if revoked else [])):
            return Verification(target=target, reasons=refused, summary=summary)
        try:
            files = folder_digests(place(), cache=self.cache)
        except Unverified as error:
            return Verification(target=target, reasons=(str(error),), summary=summary)
        judged = tuple(f for f in files if f.path != SIDECAR or SIDECAR in summary.subjects)
        reasons = file_refusals(summary, judged)
        note = self.revocations.note
        return Verification(target=target, reasons=reasons, summary=summary, files=len(judged), revocations=note)


def _envelope(attestation: Envelope | Path) -> Envelope:
    if not isinstance(attestation, Path):
        return attestation
    try:
        return attestation.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{attestation}: expected a signed attestation (the value of a version's tag {TAG_ATTESTATION}), "
            f"found: {error.strerror}; name its file with --attestation"
        ) from error


@contextmanager
def _room(into: Path | None) -> Iterator[Path]:
    if into is not None:
        yield into
        return
    with TemporaryDirectory(prefix="basin-gate-verify-") as room:
        yield Path(room) / "files"


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _fetched(registry: Registry, version: ModelVersion, folder: Path, fresh: bool) -> Path:
    return registry.fetch(version, folder) if fresh else folder


def _settle(folder: Path, envelope: str, found: Verification, fresh: bool) -> None:
    """Leave behind files with their attestation, or nothing that was fetched in vain."""
    if not found.verified:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
    elif found.summary is not None and SIDECAR not in found.summary.subjects:
        (folder / SIDECAR).write_text(json.dumps(json.loads(envelope)), encoding="utf-8")
