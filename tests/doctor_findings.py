"""What the tests of ``basin-gate doctor`` share: findings by check, and a certificate that nobody's authority signed."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gate.domain.examination import Finding, Health


def found(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The findings by check; each check has one here."""
    each = list(findings)
    assert len({f.check for f in each}) == len(each)
    return {f.check: f for f in each}


def health(findings: Iterable[Finding]) -> dict[str, Health]:
    return {name: each.health for name, each in found(findings).items()}


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that nobody's authority signed, valid for 30 days; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.pem", folder / "tls.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files
