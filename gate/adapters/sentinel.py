"""A broker that Redis Sentinel watches over: whoever asks is told which server is the master now.

Its address is ``sentinel://:PASSWORD@HOST:26379;sentinel://HOST:26379`` (the password is the master's).
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from redis import Redis
from redis.sentinel import Sentinel as Watch

from gate.domain.errors import InvalidInput

SCHEME = "sentinel://"
PORT = 26_379


class BrokerSettings(Protocol):
    """What is read of the settings."""

    @property
    def broker_url(self) -> str: ...

    @property
    def broker_sentinel_master(self) -> str: ...

    @property
    def broker_sentinel_password(self) -> SecretStr | None: ...

    @property
    def broker_ca_file(self) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Sentinel:
    """Which master to ask Sentinel for, and how; with ``ca_file`` every connection is TLS and held to that authority."""

    master: str
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    def celery(self) -> dict[str, Any]:
        """What Celery's configuration says of it, beside its transport's options."""
        return {"broker_use_ssl": self._tls(ssl.CERT_REQUIRED)} if self.ca_file else {}

    def transport(self, timeout_s: float) -> dict[str, Any]:
        """The options of Celery's transport."""
        return {"master_name": self.master, "sentinel_kwargs": self._asking(timeout_s)}

    def client(self, url: str, timeout_s: float) -> Redis:
        """A client of the present master."""
        hosts = [urlsplit(part) for part in url.split(";")]
        password = next((unquote(host.password) for host in hosts if host.password), None)
        given = {"password": password, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        tls = {"ssl": True, **self._tls("required")} if self.ca_file else {}
        places = [(host.hostname or "", host.port or PORT) for host in hosts]
        watch = Watch(places, sentinel_kwargs=self._asking(timeout_s), **given, **tls)
        master: Redis = watch.master_for(self.master)
        return master

    def _asking(self, timeout_s: float) -> dict[str, Any]:
        given: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        tls = {"ssl": True, **self._tls("required")} if self.ca_file else {}
        return given | tls | ({"password": self.password} if self.password else {})

    def _tls(self, required: object) -> dict[str, Any]:
        return {"ssl_cert_reqs": required, "ssl_ca_certs": str(self.ca_file)}


def sentinel_of(settings: BrokerSettings) -> Sentinel | None:
    """The Sentinel of the settings; ``None`` for a broker of its own. Raises `InvalidInput` for half of one."""
    by_address = settings.broker_url.startswith(SCHEME)
    if by_address != bool(settings.broker_sentinel_master):
        found = "a sentinel:// address alone" if by_address else "the master's name alone"
        raise InvalidInput(
            f"expected GATE_BROKER_URL=sentinel://… and GATE_BROKER_SENTINEL_MASTER together, found {found}; "
            "set both or neither"
        )
    if not by_address:
        return None
    password = settings.broker_sentinel_password
    return Sentinel(
        settings.broker_sentinel_master,
        password.get_secret_value() if password else None,
        settings.broker_ca_file,
    )
