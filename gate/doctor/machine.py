"""What can be told on this machine: policies, keys, disk."""

import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

from cryptography import x509

from gate.adapters.policy_files import load_policies
from gate.adapters.signing import DsseSigner, Verifier
from gate.domain.errors import GateError
from gate.domain.examination import Check, Finding, ok, problem, warning
from gate.settings import Settings

LEAST_FREE = 5_000_000_000
"""Bytes below which not even small checkpoints have room."""
EXPIRES_SOON_S = 14 * 86_400


def machine_checks(settings: Settings, clock: Callable[[], float]) -> Iterator[Check]:
    """The checks of this machine."""
    yield Check("policies", lambda: policies(settings))
    yield Check("signing key", lambda: signing_key(settings))
    yield Check("trusted keys", lambda: trusted_keys(settings))
    yield Check("TLS certificate", lambda: certificate(settings, clock()))
    yield Check("disk", lambda: disk(settings.state_dir, LEAST_FREE))


def policies(settings: Settings) -> Iterator[Finding]:
    """Policies that load, and protect something."""
    name = "policies"
    try:
        found = load_policies(settings.policies)
    except GateError as error:
        yield problem(name, "policies that load", str(error), "basin-gate policy lint PATH; set GATE_POLICIES to them")
        return
    protected = found.protected
    if not (protected.aliases or protected.stages or protected.registered_models):
        yield warning(
            name,
            "an enforcing policy that protects an alias, a stage or a registered model",
            f"{len(found.policies)} policies that refuse nothing",
            "set enforcement: enforce and protected: in a policy, once its verdicts are what you expect",
        )
        return
    kept = ", ".join((*protected.aliases, *protected.stages, *protected.registered_models))
    yield ok(name, f"{len(found.policies)}, protecting {kept}")


def signing_key(settings: Settings) -> Iterator[Finding]:
    """A private key that only its owner reads, trusted by the keys beside it."""
    name, file = "signing key", settings.signing_key_file
    if file is None:
        fix = (
            "examine again where the CPU workers run, or set GATE_SIGNING_KEY_FILE; basin-gate keys generate makes one"
        )
        yield warning(name, "GATE_SIGNING_KEY_FILE", "none: this machine signs no verdicts", fix)
        return
    try:
        signer = DsseSigner(file)
    except GateError as error:
        yield problem(name, "an Ed25519 private key", str(error), f"basin-gate keys generate {file}")
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        fix = f"chmod 600 {file}; if others could read it, make a new key and trust that one only"
        yield problem(name, "a file that only its owner can read", f"{file} with mode {mode:o}", fix)
    if settings.trusted_keys_file is not None and signer.key_id not in _trusted(settings.trusted_keys_file):
        fix = "add its public key to GATE_TRUSTED_KEYS_FILE here and on the MLflow server: what it signs is refused"
        yield problem(name, f"{settings.trusted_keys_file} to trust it", f"key {signer.key_id[:12]} is not in it", fix)
    elif not mode & 0o077:
        yield ok(name, f"{signer.key_id[:12]}, readable by its owner only")


def trusted_keys(settings: Settings) -> Iterator[Finding]:
    """Public keys that load."""
    name, file = "trusted keys", settings.trusted_keys_file
    if file is None:
        fix = "set GATE_TRUSTED_KEYS_FILE to the file that the MLflow server has"
        yield warning(name, "GATE_TRUSTED_KEYS_FILE", "none: a lost ledger could not be told from a bypass", fix)
        return
    try:
        yield ok(name, ", ".join(key[:12] for key in Verifier.from_file(file).key_ids))
    except GateError as error:
        yield problem(
            name, "Ed25519 public keys in PEM", str(error), "write the output of basin-gate keys generate there"
        )


def certificate(settings: Settings, now: float) -> Iterator[Finding]:
    """A certificate of the API that is in force, and for a while yet."""
    name, file = "TLS certificate", settings.tls_certificate_file
    if file is None:
        yield ok(name, "none: TLS ends before the API, or nowhere")
        return
    try:
        until = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        yield problem(name, "a certificate in PEM", f"{file}: {error}", "set GATE_TLS_CERTIFICATE_FILE to one")
        return
    left = until.timestamp() - now
    shown = until.astimezone(UTC).date().isoformat()
    if left <= 0:
        yield problem(name, "one in force", f"{file} expired on {shown}", "renew it and restart the API")
    elif left < EXPIRES_SOON_S:
        yield warning(name, "more than 14 days of validity", f"{file} expires on {shown}", "renew it, restart the API")
    else:
        yield ok(name, f"valid until {shown}")


def disk(place: Path, needed: int) -> Iterator[Finding]:
    """Room for ``needed`` bytes where the state folder lies (or will)."""
    place = place.resolve()
    there = next(p for p in (place, *place.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        fix = f"free some, or set GATE_STATE_DIR to a larger disk; {place}/cache can be deleted at any time"
        yield problem("disk", f"{gigabytes(needed)} free at {place}", gigabytes(free), fix)
    else:
        yield ok("disk", f"{gigabytes(free)} free at {place}")


def gigabytes(count: float) -> str:
    """A size for people.

    >>> gigabytes(1_260_000_000)
    '1.3 GB'
    """
    return f"{count / 1e9:.1f} GB"


def _trusted(file: Path) -> tuple[str, ...]:
    try:
        return Verifier.from_file(file).key_ids
    except GateError:
        return ()
