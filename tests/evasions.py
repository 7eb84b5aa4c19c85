"""Every known way through an MLflow server to a promotion that the guard must refuse, and how that is found out.

An attempt in the first table leaves nothing behind; one in the second changes something by itself before the act that
must be refused.
"""

import base64
import json
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
from guarded_stand import LEADING, PROTECTED_MODELS, GuardedStand, Target
from mlflow.exceptions import MlflowException

from gate.domain.enforcement import TAG_ATTESTATION, TAG_VERDICT
from gate.domain.promotion import same_name
from gate.domain.verdict import Outcome

ALIAS, STAGE, CREATE, RENAME = (
    "registered-models/alias",
    "model-versions/transition-stage",
    "model-versions/create",
    "registered-models/rename",
)
IS_PROMPT = "mlflow.prompt.is_prompt"
Act = Callable[[GuardedStand, Target], httpx.Response | None]
ATTEMPTS: dict[str, Act] = {}
PREPARED: dict[str, Act] = {}


def attempt(name: str) -> Callable[[Act], Act]:
    """Enters an attempt that changes something by itself before the act that must be refused."""

    def enter(act: Act) -> Act:
        PREPARED[name] = act
        return act

    return enter


def setting(alias: str = "champion", version: str = "2", prefix: str = "api/2.0") -> Act:
    return lambda s, t: s.post(ALIAS, {"name": t.name, "alias": alias, "version": version}, prefix)


def moving(stage: str, prefix: str = "api/2.0", archive: bool = False) -> Act:
    def act(s: GuardedStand, t: Target) -> httpx.Response:
        body = {"name": t.name, "version": "2", "stage": stage, "archive_existing_versions": archive}
        return s.post(STAGE, body, prefix)

    return act


for prefix in ("api/2.0", "ajax-api/2.0", "/api//2.0", "%61pi/2.0"):
    ATTEMPTS[f"alias by {prefix}"] = setting(prefix=prefix)
for alias in ("Champion", "chämpion", "ｃｈａｍｐｉｏｎ", "PRODUCTION", "prøduction", "approved", "ÀPPRÔVED"):
    ATTEMPTS[f"alias spelt {alias}"] = setting(alias)
for number in ("02", "2 ", "+2", "２"):
    ATTEMPTS[f"alias on version {number!r}"] = setting(version=number)
for prefix in ("api/2.0", "ajax-api/2.0"):
    for stage in ("Production", "pRoDuCtIoN"):
        ATTEMPTS[f"stage {stage} by {prefix}"] = moving(stage, prefix)
ATTEMPTS["stage that archives the approved one"] = moving("Production", archive=True)
for source in ("models:/{}/2", "models:/{}@challenger", "s3://bucket/anything", "models:/{}/1/../2"):
    ATTEMPTS[f"create {source} in a protected model"] = lambda s, t, source=source: (
        s.client.set_registered_model_alias(t.name, "challenger", "2"),
        s.post(CREATE, {"name": "prod.llm", "source": source.format(t.name)}),
    )[1]


@attempt("alias in json within json")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    return s.post(ALIAS, json.dumps({"name": t.name, "alias": "champion", "version": "2"}))


@attempt("alias by the python client")
def _(s: GuardedStand, t: Target) -> None:
    s.client.set_registered_model_alias(t.name, "champion", "2")


@attempt("stage by the python client")
def _(s: GuardedStand, t: Target) -> None:
    s.client.transition_model_version_stage(t.name, "2", "Production", archive_existing_versions=True)


@attempt("copy by the python client")
def _(s: GuardedStand, t: Target) -> None:
    s.client.copy_model_version(f"models:/{t.name}/2", "prod.llm")


@attempt("copy of a copy")
def _(s: GuardedStand, t: Target) -> None:
    between = s.client.copy_model_version(f"models:/{t.name}/2", f"{t.name} between")
    s.client.copy_model_version(f"models:/{between.name}/{between.version}", "prod.llm")


@attempt("copy into a protected model spelt otherwise")
def _(s: GuardedStand, t: Target) -> None:
    # On MySQL it is there already: the protected model itself.
    with suppress(MlflowException):
        s.client.create_registered_model("PRÖD.llm")
    s.client.copy_model_version(f"models:/{t.name}/2", "PRÖD.llm")


@attempt("rename onto a protected model's other spelling")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    s.client.create_registered_model(f"{t.name} plain")
    return s.post(RENAME, {"name": f"{t.name} plain", "new_name": "Prod.LLM"})


@attempt("rename a protected model away")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    return s.post(RENAME, {"name": "prod.llm", "new_name": "old"})


@attempt("rename a model that holds a protected alias")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    return s.post(RENAME, {"name": t.name, "new_name": "elsewhere"})


def attested(name: str, value: Callable[[GuardedStand, Target], str]) -> None:
    """An attempt that writes a false approval first."""

    @attempt(f"attestation {name}")
    def _(s: GuardedStand, t: Target) -> None:
        s.client.set_model_version_tag(t.name, "2", TAG_ATTESTATION, value(s, t))
        s.client.set_model_version_tag(t.name, "2", TAG_VERDICT, "approved")
        s.client.set_registered_model_alias(t.name, "champion", "2")


def edited(envelope: str, old: str, new: str) -> str:
    document = json.loads(envelope)
    payload = base64.b64decode(document["payload"]).decode()
    assert old in payload
    document["payload"] = base64.b64encode(payload.replace(old, new).encode()).decode()
    return json.dumps(document)


attested("that is a word", lambda s, t: "approved")
attested("that nobody signed", lambda s, t: json.dumps(json.loads(s.attestation(t.bad.identity)) | {"signatures": []}))
attested("by another key", lambda s, t: s.attestation(t.bad.identity, s.stranger))
attested("of version 1", lambda s, t: s.attestation(t.good.identity))
attested("that expired", lambda s, t: s.attestation(t.bad.identity, expires_at=int(time.time()) - 5))
attested("that blocks", lambda s, t: s.attestation(t.bad.identity, outcome=Outcome.BLOCKED))
attested("by another policy", lambda s, t: s.attestation(t.bad.identity, policy="lenient"))
attested(
    "that blocked, edited to approve",
    lambda s, t: edited(s.attestation(t.bad.identity, outcome=Outcome.BLOCKED), '"FAILED"', '"PASSED"'),
)
attested(
    "edited to name version 2", lambda s, t: edited(s.attestation(t.good.identity), t.good.identity, t.bad.identity)
)


@attempt("tags of the approved version given at creation")
def _(s: GuardedStand, t: Target) -> None:
    tags = dict(s.client.get_model_version(t.name, "1").tags)
    made = s.client.create_model_version(t.name, t.good.source, tags=tags)
    s.client.set_registered_model_alias(t.name, "champion", made.version)


@attempt("dressed up as a prompt by its own tag")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    s.client.set_model_version_tag(t.name, "2", IS_PROMPT, "true")
    return setting()(s, t)


@attempt("dressed up as a prompt by its model's tag")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    s.client.set_registered_model_tag(t.name, IS_PROMPT, "true")
    return setting()(s, t)


@attempt("hidden behind a real prompt's version in the same model")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    tags = [{"key": IS_PROMPT, "value": "true"}, {"key": "mlflow.prompt.text", "value": "hello"}]
    s.post(CREATE, {"name": t.name, "source": "prompt-template", "tags": tags})
    return setting()(s, t)


@attempt("old approval on a model deleted and made again")
def _(s: GuardedStand, t: Target) -> None:
    approval = s.client.get_model_version(t.name, "1").tags[TAG_ATTESTATION]
    s.client.delete_registered_model(t.name)
    s.client.create_registered_model(t.name)
    again = s.client.create_model_version(t.name, t.good.source)
    s.client.set_model_version_tag(t.name, again.version, TAG_ATTESTATION, approval)
    s.client.set_registered_model_alias(t.name, "champion", again.version)


@attempt("number of a deleted version taken again")
def _(s: GuardedStand, t: Target) -> None:
    s.client.delete_model_version(t.name, "1")
    made = s.client.create_model_version(t.name, t.good.source)
    s.client.set_registered_model_alias(t.name, "champion", made.version)


@attempt("approved alias on a version that was deleted")
def _(s: GuardedStand, t: Target) -> httpx.Response:
    s.client.delete_model_version(t.name, "1")
    return setting(version="1")(s, t)


for prefix, path, method in (("api/3.0", ALIAS, "POST"), ("api/2.0", ALIAS, "PUT"), ("api/2.0", STAGE, "PATCH")):
    ATTEMPTS[f"{method} to {prefix} {path}"] = lambda s, t, prefix=prefix, path=path, method=method: httpx.request(
        method,
        f"{s.uri}/{prefix}/mlflow/{path}",
        json={"name": t.name, "alias": "champion", "version": "2", "stage": "Production"},
        timeout=60,
    )

NOT_MLFLOWS_LANGUAGE = {400, 404, 405}
UNDERSTOOD_BY_NOBODY = {
    "create models:/{}/1/../2 in a protected model",
    "POST to api/3.0 registered-models/alias",
    "PUT to api/2.0 registered-models/alias",
    "PATCH to api/2.0 model-versions/transition-stage",
    "approved alias on a version that was deleted",
}
"""The attempts that MLflow itself turns away before they come to the guard."""


def refused(stand: GuardedStand, target: Target, name: str, act: Act) -> None:
    status, told = outcome(lambda: act(stand, target))
    assert unapproved(stand, target) == set()
    if name in UNDERSTOOD_BY_NOBODY:
        assert status in NOT_MLFLOWS_LANGUAGE
    else:
        assert (status, "[basin-gate]" in told, "is refused: " in told) == (403, True, True)


def outcome(act: Callable[[], httpx.Response | None]) -> tuple[int, str]:
    """The status and the text of an answer, by whichever client."""
    try:
        reply = act()
    except MlflowException as error:
        # The client's copy wraps the refusal in an error of its own.
        wrapped = "PERMISSION_DENIED: [basin-gate]" in str(error)
        return (403 if wrapped else error.get_http_status_code()), str(error)
    assert reply is not None, "it was let pass"
    return reply.status_code, reply.text


def unapproved(stand: GuardedStand, target: Target) -> set[tuple[str, str]]:
    """Protected places that lead to anything but the version that was approved."""
    found = set()
    for name in stand.models():
        held = {place: number for place, number in stand.leads(name).items() if is_protected(place)}
        found |= {(name, place) for place, number in held.items() if (name, number) != (target.name, "1")}
        if any(same_name(name, each) for each in PROTECTED_MODELS) and stand.has_versions(name):
            found.add((name, "version"))
    return found


def is_protected(place: str) -> bool:
    return place == "stage Production" or any(same_name(place, each) for each in LEADING)
