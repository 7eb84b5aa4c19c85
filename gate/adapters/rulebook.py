"""What the guard answers from: the policies, the trusted keys, the list of revocations; no network, no private key."""

from functools import lru_cache
from pathlib import Path
from typing import Protocol

from gate.adapters.policy_files import load_policies
from gate.adapters.revocations import KnownRevocations, listed, marked, opened
from gate.adapters.signing import Verifier
from gate.domain.attestation import PAYLOAD_TYPE, Summary, read_summary
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_REVOKED
from gate.domain.errors import GateError
from gate.domain.policy import Policy
from gate.domain.probe import GuardState


class RulebookSettings(Protocol):
    """What a rulebook needs of the settings."""

    @property
    def policies(self) -> Path | None: ...

    @property
    def guard_tag_writers(self) -> str: ...

    @property
    def guard_current_policy_only(self) -> bool: ...

    @property
    def trusted_keys_file(self) -> Path | None: ...

    @property
    def revocations_file(self) -> Path | None: ...


class Rulebook:
    """The policies and the trusted keys, as their files say; made anew when a file changes."""

    def __init__(self, settings: RulebookSettings) -> None:
        self.policies = load_policies(settings.policies)
        self.writers = frozenset(w.strip() for w in settings.guard_tag_writers.split(",") if w.strip())
        self._current_only = settings.guard_current_policy_only
        self._verifier, self._no_verifier = _verifier(settings.trusted_keys_file)
        self._revocations = KnownRevocations()
        if self._verifier and settings.revocations_file:
            self._revocations = KnownRevocations(listed(self._verifier, settings.revocations_file))
        self._summary = lru_cache(maxsize=4096)(self._open)

    def refusal(self, version: ModelVersion, policy: Policy, now: int) -> str | None:
        """Why this version's attestation is no approval under this policy, or ``None`` where it is one."""
        envelope = version.tags.get(TAG_ATTESTATION)
        if self._verifier is None:
            return self._no_verifier
        if revoked := self._revoked(version, None, now):
            return revoked
        if not envelope:
            return f"it has no verdict yet (tag {TAG_ATTESTATION} is missing); wait for the gate or have it evaluated"
        try:
            summary = self._summary(envelope)
        except GateError as error:
            return f"its attestation is not valid: {error}"
        revoked = self._revoked(version, summary.candidate_digest, now)
        other = self._other_policy(summary, policy) or _unbreakable(summary, policy)
        return revoked or other or summary.refusal(version.identity, now)

    @property
    def state(self) -> GuardState:
        """What these rules go by, for whoever asks whether the guard is there."""
        policies = {policy.name: policy.digest for policy in self.policies.policies}
        return GuardState(policies=policies, keys=self._verifier.key_ids if self._verifier else ())

    def is_for_good(self, mark: str | None, identity: str) -> bool:
        """Whether a tag's value is this version's own revocation, signed by a trusted key."""
        try:
            return bool(self._verifier and mark and opened(self._verifier, mark).of(identity, None))
        except GateError:
            return False

    def _revoked(self, version: ModelVersion, digest: str | None, now: int) -> str | None:
        assert self._verifier is not None
        mark = marked(self._verifier, version.tags.get(TAG_REVOKED), version.identity, digest)
        return mark or self._revocations.refusal(version.identity, digest, now)

    def _other_policy(self, summary: Summary, policy: Policy) -> str | None:
        if summary.policy != policy.name:
            return f"its verdict is by policy {summary.policy}, expected {policy.name}; have it evaluated by that one"
        if self._current_only and summary.policy_digest != policy.digest:
            return f"its verdict is by an earlier text of policy {policy.name}; have it evaluated again"
        return None

    def _open(self, envelope: str) -> Summary:
        assert self._verifier is not None
        return read_summary(self._verifier.open(envelope, PAYLOAD_TYPE))


def _unbreakable(summary: Summary, policy: Policy) -> str | None:
    """Why an approval against the findings does not count under this policy."""
    terms = policy.break_glass
    if summary.broken_by is None or (terms and summary.expires_at - summary.verified_at <= terms.max_hours * 3600):
        return None
    allowed = f"for at most {terms.max_hours} hours" if terms else "for no time"
    return f"it was approved by breaking the glass, which policy {policy.name} permits {allowed}; have it reviewed"


def _verifier(file: Path | None) -> tuple[Verifier | None, str]:
    """The trusted keys, or why there are none: then nothing is approved, and each refusal says so."""
    if file is None:
        return None, "the MLflow server trusts no key; set GATE_TRUSTED_KEYS_FILE to the gate's public key"
    try:
        return Verifier.from_file(file), ""
    except GateError as error:
        return None, str(error)
