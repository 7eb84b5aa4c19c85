"""An OpenID Connect issuer on loopback: real keys, real signatures, its documents over HTTP."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MADE: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
AUDIENCE = "basin-gate"


class Issuer:
    """What it publishes can be changed while it is asked; ``asked`` counts the times its keys were read."""

    def __init__(self, address: str) -> None:
        self.address = self.calls_itself = address
        self.private: dict[str, tuple[str, Any]] = {}
        self.published: list[dict[str, Any]] = []
        self.asked = 0
        self.up = True

    def add_key(self, kid: str, algorithm: str = "RS256", **said: Any) -> None:
        """A new key pair; its public half is published at once."""
        private = MADE[algorithm]()
        self.private[kid] = (algorithm, private)
        jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
        self.published.append({**jwk, "kid": kid, "use": "sig", "alg": algorithm, **said})

    def token(self, kid: str = "k1", **claims: Any) -> str:
        """A token signed with a key; a claim that is ``None`` is left out."""
        algorithm, private = self.private[kid]
        return jwt.encode(self.claims(**claims), private, algorithm, headers={"kid": kid})

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        said = {"iss": self.address, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600, "roles": ["reader"]}
        return {claim: value for claim, value in {**said, **changes}.items() if value is not None}

    def answer(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.calls_itself, "jwks_uri": f"{self.address}/keys"}
        if path == "/keys":
            self.asked += 1
            return {"keys": self.published}
        return None


@contextmanager
def an_issuer() -> Iterator[Issuer]:
    """An issuer with one RSA key, ``k1``, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.answer(self.path) if issuer.up else None
            self.send_response(503 if not issuer.up else 404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the test tells what was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
    issuer.add_key("k1")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
