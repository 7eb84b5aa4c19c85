"""Every known way around the gate, tried on a real MLflow server: refused with a reason, or seen, undone and told.

The first table goes through the server, where the guard stands; the second goes past it: an unguarded second server on
the same database, and the database itself. None may succeed in silence.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from guarded_stand import LEADING, PROTECTED_MODELS, GuardedStand, Target
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException

from gate.domain.checkpoint import ModelVersion
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
BYPASSES: dict[str, tuple[Act, str]] = {}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStand]:
    made = GuardedStand(tmp_path_factory.mktemp("evaded"))
    yield made
    made.close()


@pytest.fixture
def target(stand: GuardedStand) -> Iterator[Target]:
    """A target of the test's own; afterwards the registry is empty again but for the protected models."""
    stand.clear()
    yield stand.target()
    stand.clear()


@pytest.fixture(scope="module")
def lasting(stand: GuardedStand) -> Target:
    """One target for all attempts that leave nothing behind."""
    return stand.target()


# -- through the server


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


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_through_the_server_is_refused_with_the_reason_and_changes_nothing(
    stand: GuardedStand, lasting: Target, name: str
) -> None:
    refused(stand, lasting, name, ATTEMPTS[name])


@pytest.mark.parametrize("name", PREPARED)
def test_an_attempt_with_preparations_is_refused_with_the_reason_and_promotes_nothing(
    stand: GuardedStand, target: Target, name: str
) -> None:
    refused(stand, target, name, PREPARED[name])


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
        held = {place: number for place, number in stand.leads(name).items() if guarded(place)}
        found |= {(name, place) for place, number in held.items() if (name, number) != (target.name, "1")}
        if any(same_name(name, each) for each in PROTECTED_MODELS) and stand.has_versions(name):
            found.add((name, "version"))
    return found


def guarded(place: str) -> bool:
    return place == "stage Production" or any(same_name(place, each) for each in LEADING)


# -- past the server


def bypass(name: str, told: str = "promoted without approval") -> Callable[[Act], Act]:
    """Enters a bypass, and what the audit log must tell of it."""

    def enter(act: Act) -> Act:
        BYPASSES[name] = (act, told)
        return act

    return enter


@bypass("alias row changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    assert (
        s.sql("update registered_model_aliases set version = 2 where name = :n and alias = 'champion'", n=t.name) == 1
    )


@bypass("alias row added to the database")
def _(s: GuardedStand, t: Target) -> None:
    columns = "workspace, name, alias, version"
    chosen = "select workspace, name, 'production', 2 from registered_model_aliases where name = :n"
    assert s.sql(f"insert into registered_model_aliases ({columns}) {chosen}", n=t.name) == 1


@bypass("alias set by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")


@bypass("alias set by a second server in another spelling")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "Chämpion", "2")


@bypass("the gate's own alias set by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "approved", "2")


@bypass("alias of a model dressed up as a prompt")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_tag(t.name, RegisteredModelTag(IS_PROMPT, "true"))
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")


@bypass("alias of a version whose row says it is a prompt")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")
    s.sql("update model_versions set source = 'prompt-template' where name = :n and version = 2", n=t.name)


@bypass("stage row changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    s.sql("update model_versions set current_stage = 'Production' where name = :n and version = 2", n=t.name)


@bypass("stage moved by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.transition_model_version_stage(t.name, "2", "Production", False)


@bypass("stage moved by a second server, the approved one archived")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.transition_model_version_stage(t.name, "2", "Production", True)


@bypass("alias onto a model deleted and made again")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.delete_registered_model(t.name)
    s.unguarded.create_registered_model(t.name)
    s.unguarded.create_model_version(t.name, "s3://bucket/evil")
    s.unguarded.set_registered_model_alias(t.name, "champion", "1")


@bypass("model with a protected alias renamed by a second server")
def _(s: GuardedStand, t: Target) -> None:
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")
    s.unguarded.rename_registered_model(t.name, f"{t.name} renamed")


@bypass("source of the approved version changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    s.sql("update model_versions set source = 's3://bucket/evil' where name = :n and version = 1", n=t.name)


@bypass("creation time of the approved version changed in the database")
def _(s: GuardedStand, t: Target) -> None:
    s.sql("update model_versions set creation_time = creation_time + 1 where name = :n and version = 1", n=t.name)


@bypass("approval of version 1 copied onto version 2 by a second server")
def _(s: GuardedStand, t: Target) -> None:
    approval = s.client.get_model_version(t.name, "1").tags[TAG_ATTESTATION]
    s.unguarded.set_model_version_tag(t.name, "2", ModelVersionTag(TAG_ATTESTATION, approval))
    s.unguarded.set_registered_model_alias(t.name, "champion", "2")


@pytest.mark.parametrize("name", BYPASSES)
def test_a_promotion_past_the_guard_is_undone_and_told_within_a_minute(
    stand: GuardedStand, target: Target, name: str
) -> None:
    stand.client.transition_model_version_stage(target.name, "1", "Production")
    stand.sweep()
    act, told = BYPASSES[name]
    act(stand, target)
    assert unapproved(stand, target) or identities(stand) != {target.good.identity, target.bad.identity}
    promoted = identities(stand)

    for _ in range(3):
        stand.sweep()
        if not unapproved(stand, target) and leading(stand) <= {target.good.identity}:
            break

    assert unapproved(stand, target) == set()
    assert leading(stand) <= {target.good.identity}
    facts = [fact for identity in promoted for fact in stand.audited(identity)]
    assert told in facts
    assert {"alias restored", "alias removed", "stage restored", "stage removed"} & set(facts)
    assert stand.drifted() == 0


def identities(stand: GuardedStand) -> set[str]:
    """The identities of all versions that there are."""
    with stand.unguarded.engine.connect() as connection:
        rows = connection.exec_driver_sql("select name, version from model_versions").all()
    return {stand.registry.version(row.name, str(row.version)).identity for row in rows}


def leading(stand: GuardedStand) -> set[str]:
    """The identities of the versions that hold a protected place."""
    held = [(name, number) for name in stand.models() for place, number in stand.leads(name).items() if guarded(place)]
    return {stand.registry.version(name, number).identity for name, number in held}


def test_a_version_put_into_a_protected_model_past_the_guard_is_told_and_stays_an_alarm(
    stand: GuardedStand, target: Target
) -> None:
    stand.unguarded.create_model_version("prod.llm", f"models:/{target.name}/2")
    put = stand.registry.version("prod.llm", "1")
    stand.sweep()

    assert "promoted without approval" in stand.audited(put.identity)
    assert stand.drifted() == 1


def test_a_model_renamed_onto_a_protected_name_past_the_guard_is_told_and_stays_an_alarm(
    stand: GuardedStand, target: Target
) -> None:
    stand.unguarded.create_registered_model(f"{target.name} other")
    stand.unguarded.create_model_version(f"{target.name} other", "s3://bucket/evil")
    stand.unguarded.rename_registered_model(f"{target.name} other", "Prod.Chat")
    stand.sweep()

    assert "promoted without approval" in stand.audited(stand.registry.version("Prod.Chat", "1").identity)
    assert stand.drifted() == 1


def unannounced(stand: GuardedStand, name: str) -> ModelVersion:
    stand.unguarded.create_model_version(name, "s3://bucket/unannounced")
    return stand.registry.version(name, "3")


@pytest.mark.parametrize("way", ["told to nobody", "back-dated", "hidden by its own tag", "hidden by another's tag"])
def test_a_version_that_no_webhook_told_of_is_evaluated_within_a_minute(
    stand: GuardedStand, target: Target, way: str
) -> None:
    made = unannounced(stand, target.name)
    if way == "back-dated":
        stand.sql("update model_versions set creation_time = 1 where name = :n and version = 3", n=target.name)
        made = stand.registry.version(target.name, "3")
    if way.startswith("hidden"):
        number = "3" if "own" in way else "1"
        stand.unguarded.set_model_version_tag(target.name, number, ModelVersionTag(IS_PROMPT, "true"))

    stand.sweep(times=3)

    assert stand.audited(made.identity) == ["evaluation requested"]


@pytest.mark.parametrize("harm", ["deleted", "pointed elsewhere", "disabled"])
def test_a_webhook_that_was_harmed_is_mended_within_one_sweep_and_told(stand: GuardedStand, harm: str) -> None:
    stand.sweep()
    hook = next(h for h in stand.client.list_webhooks() if h.name == "basin-gate")
    match harm:
        case "deleted":
            stand.client.delete_webhook(hook.webhook_id)
        case "pointed elsewhere":
            stand.client.update_webhook(hook.webhook_id, url="http://127.0.0.1:1/elsewhere")
        case "disabled":
            stand.client.update_webhook(hook.webhook_id, status="DISABLED")
    before = webhook_facts(stand)

    stand.sweep()

    mended = next(h for h in stand.client.list_webhooks() if h.name == "basin-gate")
    assert (mended.url, mended.status.is_active()) == (hook.url, True)
    assert len(webhook_facts(stand)) == len(before) + 1


def webhook_facts(stand: GuardedStand) -> list[Any]:
    with stand.ledger._database.engine.connect() as connection:
        return list(connection.exec_driver_sql("select event from audit where event like 'webhook %'").all())


@pytest.mark.parametrize(
    ("tag", "value"),
    [(TAG_VERDICT, "blocked"), (TAG_ATTESTATION, None), (TAG_ATTESTATION, "none"), (TAG_ATTESTATION, "of yesterday")],
)
def test_result_tags_changed_by_somebody_else_are_written_again(
    stand: GuardedStand, target: Target, tag: str, value: str | None
) -> None:
    stand.sweep()
    if value is None:
        stand.unguarded.delete_model_version_tag(target.name, "1", tag)
    else:
        older = stand.attestation(target.good.identity, policy_digest="e" * 64) if value == "of yesterday" else value
        stand.unguarded.set_model_version_tag(target.name, "1", ModelVersionTag(tag, older))

    stand.sweep()

    assert "projection mended" in stand.audited(target.good.identity)


def test_there_are_enough_attempts_on_each_side_of_the_guard() -> None:
    assert len(ATTEMPTS) + len(PREPARED) >= 40
    assert len(BYPASSES) >= 15
