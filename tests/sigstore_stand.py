"""A Sigstore instance of one's own for tests: a certificate authority, a log of certificates and a log of signatures.

Real keys, real short-lived certificates for the identity of a token, real inclusion proofs; what a public instance has
beyond that is keeping. Served over HTTP on loopback as Fulcio (v2 API) and Rekor (v1 API) are.
"""

import base64
import hashlib
import json
import struct
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ISSUER = "https://issuer.example"
IDENTITY = "https://kubernetes.example/namespaces/gate/serviceaccounts/worker"
ISSUER_EXTENSION = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
SCT_EXTENSION = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
SHA256_ECDSA = b"\x04\x03"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def ecdsa(key: ec.EllipticCurvePrivateKey, content: bytes) -> bytes:
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


def leaf(body: bytes) -> bytes:
    return hashlib.sha256(b"\0" + body).digest()


def root(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962."""
    if len(leaves) == 1:
        return leaves[0]
    at = _split(len(leaves))
    return hashlib.sha256(b"\1" + root(leaves[:at]) + root(leaves[at:])).digest()


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """The inclusion proof of RFC 6962."""
    if len(leaves) == 1:
        return []
    at = _split(len(leaves))
    if index < at:
        return [*path(index, leaves[:at]), root(leaves[at:])]
    return [*path(index - at, leaves[at:]), root(leaves[:at])]


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


class SigstoreStand:
    """The instance: ``trust`` is its client trust configuration; ``lifetime`` that of its certificates.

    ``later`` is by how many seconds the log says that it saw an entry later than it did; ``hanging`` is how long it does not
    answer.
    """

    def __init__(self) -> None:
        self.authority, self.certificates, self.log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.lifetime, self.later = timedelta(minutes=10), 0
        self.bodies: list[bytes] = []
        self.refusing, self.hanging = False, threading.Event()
        self.hanging.set()
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.ca = self._authority()
        handler = type("Handler", (_Handler,), {"stand": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.hanging.set()
        self.server.shutdown()
        self.server.server_close()

    def token(self, identity: str = IDENTITY, *, issuer: str = ISSUER, ends_in_s: int = 600) -> str:
        """An identity token. Who issues it is not what is tried here: the authority takes any."""
        now = int(time.time())
        claims = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": now - 5, "exp": now + ends_in_s}
        return jwt.encode(claims, "a secret of the tests' own issuer, long enough", algorithm="HS256")

    def trust(self, **changed: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
        """The client trust configuration; with keys of another log where asked."""
        keys = {"certificates": self.certificates, "log": self.log, **changed}
        valid = {"start": (self.now - timedelta(days=1)).isoformat().replace("+00:00", "Z")}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
            identifier = {"keyId": b64(hashlib.sha256(der(key)).digest())}
            return {"baseUrl": self.url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identifier}

        chain = [{"rawBytes": b64(self.ca.public_bytes(serialization.Encoding.DER))}]
        subject = {"organization": "tests", "commonName": "tests"}
        service = {"url": self.url, "majorApiVersion": 1, "validFor": valid, "operator": "tests"}
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(keys["log"])],
                "certificateAuthorities": [
                    {"subject": subject, "uri": self.url, "certChain": {"certificates": chain}, "validFor": valid}
                ],
                "ctlogs": [log(keys["certificates"])],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [service],
                "oidcUrls": [],
                "rekorTlogUrls": [service],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": [],
                "tsaConfig": {"selector": "ANY"},
            },
        }

    def trust_file(self, folder: Path, **changed: ec.EllipticCurvePrivateKey) -> Path:
        file = folder / f"trust{'-'.join(changed)}.json"
        file.write_text(json.dumps(self.trust(**changed)))
        return file

    def _authority(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests' authority")])
        public = self.authority.public_key()
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=1))
            .not_valid_after(self.now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        return builder.sign(self.authority, hashes.SHA256())

    def certify(self, token: str, request: bytes) -> list[str]:
        """The chain for the identity of a token: certificate with its place in the log of certificates, authority."""
        claims = jwt.decode(token, options={"verify_signature": False})
        public = x509.load_pem_x509_csr(request).public_key()
        begins = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.subject)
            .public_key(public)  # the client makes an elliptic key
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + self.lifetime)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(claims["sub"])]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER_EXTENSION, claims["iss"].encode()), critical=False)
        )
        seen = builder.add_extension(
            x509.UnrecognizedExtension(SCT_EXTENSION, self._timestamp(builder.sign(self.authority, hashes.SHA256()))),
            critical=False,
        )
        chain = (seen.sign(self.authority, hashes.SHA256()), self.ca)
        return [each.public_bytes(serialization.Encoding.PEM).decode() for each in chain]

    def _timestamp(self, precertificate: x509.Certificate) -> bytes:
        """One signed certificate timestamp (RFC 6962) as its extension carries it."""
        at = int(time.time() * 1000)
        tbs = precertificate.tbs_certificate_bytes
        issuer = hashlib.sha256(der(self.authority)).digest()
        signed = struct.pack("!BBQH", 0, 0, at, 1) + issuer + struct.pack("!I", len(tbs))[1:] + tbs + b"\0\0"
        signature = ecdsa(self.certificates, signed)
        key = hashlib.sha256(der(self.certificates)).digest()
        one = b"\0" + key + struct.pack("!QH", at, 0) + SHA256_ECDSA + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!H", len(one)) + one
        whole = struct.pack("!H", len(listed)) + listed
        return (
            b"\x04\x82" + struct.pack("!H", len(whole)) + whole
            if len(whole) > 255
            else (b"\x04" + (b"\x81" if len(whole) > 127 else b"") + bytes([len(whole)]) + whole)
        )

    def enter(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """An entry of the log of signatures, with its promise and its proof."""
        given = proposed["spec"]["proposedContent"]
        envelope, verifier = json.loads(given["envelope"]), given["verifiers"][0]
        payload = base64.b64decode(envelope["payload"])
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(given["envelope"].encode()).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": each["sig"], "verifier": verifier} for each in envelope["signatures"]],
        }
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        self.bodies.append(body)
        leaves, index = [leaf(each) for each in self.bodies], len(self.bodies) - 1
        identifier = hashlib.sha256(der(self.log)).digest()
        note = f"tests - 1\n{len(leaves)}\n{b64(root(leaves))}\n"
        checkpoint = f"{note}\n— tests {b64(identifier[:4] + ecdsa(self.log, note.encode()))}\n"
        entry = {
            "body": b64(body),
            "integratedTime": int(time.time()) + self.later,
            "logID": identifier.hex(),
            "logIndex": index,
        }
        proof = {
            "logIndex": index,
            "rootHash": root(leaves).hex(),
            "treeSize": len(leaves),
            "hashes": [each.hex() for each in path(index, leaves)],
            "checkpoint": checkpoint,
        }
        promise = b64(ecdsa(self.log, rfc8785.dumps(entry)))
        verification = {"inclusionProof": proof, "signedEntryTimestamp": promise}
        return {leaf(body).hex(): entry | {"verification": verification}}


class _Handler(BaseHTTPRequestHandler):
    stand: SigstoreStand

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.stand.hanging.wait()
        if self.stand.refusing:
            self._answer(503, {"message": "not now"})
        elif self.path == "/api/v2/signingCert":
            token = self.headers["Authorization"].removeprefix("Bearer ")
            chain = self.stand.certify(token, base64.b64decode(given["certificateSigningRequest"]))
            self._answer(200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}})
        else:
            self._answer(201, self.stand.enter(given))

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""
