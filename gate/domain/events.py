"""MLflow's webhook deliveries: headers, bytes and secrets in, a verified event out. No I/O, no clock."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput, Unverified

ID_HEADER = "x-mlflow-delivery-id"
TIMESTAMP_HEADER = "x-mlflow-timestamp"
SIGNATURE_HEADER = "x-mlflow-signature"
WEBHOOK_PATH = "/webhooks/mlflow"
"""Where deliveries are received, below the gate's public address."""
FUTURE_S = 300
"""How far in the future a timestamp may lie: two hosts' clocks differ, a replay does not come early."""


class Delivery(Frozen):
    """One HTTP attempt whose signature held. MLflow's retries repeat id, timestamp and signature."""

    id: str
    sent_at: int
    body: bytes

    @property
    def body_digest(self) -> str:
        """sha256 of the body; the same words sent under another delivery id share it."""
        return hashlib.sha256(self.body).hexdigest()


class EventKind(StrEnum):
    """What an event means to the gate."""

    VERSION_CREATED = "version_created"
    ALIAS_SET = "alias_set"
    ALIAS_DELETED = "alias_deleted"
    TAG_SET = "tag_set"
    TAG_DELETED = "tag_deleted"
    MODEL_CREATED = "model_created"
    PROMPT = "prompt"
    PING = "ping"
    UNKNOWN = "unknown"


class RegistryEvent(Frozen):
    """What MLflow says happened. A hint, never the truth: the registry is read again before anything is done.

    ``as_prompt`` is true where MLflow spoke of a prompt: a registered model can be dressed up as one by a tag,
    and then its alias changes are told as a prompt's.
    """

    kind: EventKind
    name: str = ""
    version: str | None = None
    alias: str | None = None
    key: str | None = None
    value: str | None = None
    as_prompt: bool = False
    told_as: str = ""


def verify_delivery(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float, tolerance_s: float
) -> Delivery:
    """The delivery, once its signature held under any of the secrets and its timestamp is near ``now``.

    MLflow signs ``{delivery id}.{timestamp}.{raw body}`` with HMAC-SHA256 and sends ``v1,`` and the base64 of it.
    Raises `Unverified`.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    delivery_id, stamp, signature = (_required(lowered, h) for h in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not _signed_by_any(f"{delivery_id}.{stamp}.".encode() + body, signature, secrets):
        raise Unverified(
            f"expected {SIGNATURE_HEADER} made with one of the {len(secrets)} configured webhook secrets, found a "
            "signature that none of them made; give MLflow's webhook and the gate the same secret"
        )
    sent_at = _timestamp(stamp)
    if not now - tolerance_s <= sent_at <= now + FUTURE_S:
        raise Unverified(
            f"expected a timestamp at most {tolerance_s:.0f} s old and {FUTURE_S} s ahead, found one "
            f"{now - sent_at:.0f} s old; check both hosts' clocks (or it is a replay)"
        )
    return Delivery(id=delivery_id, sent_at=sent_at, body=body)


def sign(delivery_id: str, timestamp: int, body: bytes, secret: str) -> str:
    """The signature header MLflow would send.

    >>> sign("id", 1, b"{}", "s")
    'v1,FBhQvUxwRZEwPkHvJlYP68fzcPeHBTuRJdaSnq1LtyA='
    """
    mac = hmac.new(secret.encode(), f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def _required(lowered: Mapping[str, str], header: str) -> str:
    value = lowered.get(header, "")
    if not value:
        raise Unverified(f"expected header {header}, found none; register the webhook with a secret")
    return value


def _signed_by_any(message: bytes, signature: str, secrets: Sequence[str]) -> bool:
    # Bytes, since compare_digest raises on non-ASCII text; every secret is tried, so that the time taken does not
    # tell which of them matched.
    given = signature.encode(errors="replace")
    held = False
    for secret in secrets:
        mac = hmac.new(secret.encode(), message, hashlib.sha256).digest()
        held |= hmac.compare_digest(b"v1," + base64.b64encode(mac), given)
    return held


def _timestamp(stamp: str) -> int:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise Unverified(f"expected {TIMESTAMP_HEADER} in whole Unix seconds, found {stamp[:40]!r}")
    return int(stamp)


T = TypeVar("T")


class _Said(BaseModel):
    """MLflow's words are an open world: unknown fields are left alone, so a newer server is still understood."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


Name = Annotated[str, Field(min_length=1)]


class _Envelope(_Said):
    entity: str
    action: str
    data: dict[str, Any]


class _Model(_Said):
    name: Name


class _Version(_Said):
    name: Name
    version: str
    source: str = ""
    template: str | None = None


class _AliasSet(_Said):
    name: Name
    alias: Name
    version: str


class _AliasDeleted(_Said):
    name: Name
    alias: Name


class _Tag(_Said):
    name: Name
    version: str
    key: str
    value: str | None = None


_SHAPES: Mapping[str, tuple[EventKind, type[_Said]]] = {
    "registered_model.created": (EventKind.MODEL_CREATED, _Model),
    "model_version.created": (EventKind.VERSION_CREATED, _Version),
    "model_version_alias.created": (EventKind.ALIAS_SET, _AliasSet),
    "model_version_alias.deleted": (EventKind.ALIAS_DELETED, _AliasDeleted),
    "model_version_tag.set": (EventKind.TAG_SET, _Tag),
    "model_version_tag.deleted": (EventKind.TAG_DELETED, _Tag),
    "prompt_version.created": (EventKind.VERSION_CREATED, _Version),
    "prompt_alias.created": (EventKind.ALIAS_SET, _AliasSet),
    "prompt_alias.deleted": (EventKind.ALIAS_DELETED, _AliasDeleted),
}

SUBSCRIPTIONS: tuple[str, ...] = (
    "model_version.created",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
)
"""The events the gate asks MLflow for. Prompt aliases too: a model tagged as a prompt moves its aliases as one."""

_ENVELOPE = TypeAdapter(_Envelope)


def parse_event(delivery: Delivery) -> RegistryEvent:
    """What a verified delivery says. Raises `InvalidInput` when it is not MLflow's shape."""
    envelope = _parsed(_ENVELOPE, _json(delivery.body), "a webhook envelope {entity, action, data}")
    told_as = f"{envelope.entity}.{envelope.action}"
    if told_as not in _SHAPES:
        is_prompt = envelope.entity.startswith("prompt")
        return RegistryEvent(kind=EventKind.PROMPT if is_prompt else EventKind.UNKNOWN, told_as=told_as)
    kind, shape = _SHAPES[told_as]
    said = _parsed(TypeAdapter(shape), envelope.data, f"the data of {told_as}")
    return _event(kind, said.model_dump(), told_as)


def _event(kind: EventKind, said: Mapping[str, Any], told_as: str) -> RegistryEvent:
    if _is_ping(said):
        return RegistryEvent(kind=EventKind.PING, name=said["name"], told_as=told_as)
    if said.get("template") is not None:
        return RegistryEvent(kind=EventKind.PROMPT, name=said["name"], told_as=told_as)
    return RegistryEvent(
        kind=kind,
        told_as=told_as,
        as_prompt=told_as.startswith("prompt"),
        **{f: said.get(f) for f in ("name", "version", "alias", "key", "value")},
    )


def _is_ping(said: Mapping[str, Any]) -> bool:
    """MLflow's test button sends canned words, signed like real ones; only the words tell them apart."""
    if said["name"] not in ("example_model", "example_prompt"):
        return False
    canned = (
        said.get("alias") == "example_alias",
        said.get("key") == "example_key",
        said.get("source") == "models:/123",
    )
    return any(canned) or set(said) == {"name"}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"expected a JSON body, found {len(body)} bytes that are not ({str(e)[:120]})") from e


def _parsed(adapter: TypeAdapter[T], value: Any, what: str) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InvalidInput(f"expected {what}, found {where}: {first['msg']}") from e
