"""What the reconciler sees on a real MLflow server besides promotions: put versions, hidden ones, webhooks, tags."""

from collections.abc import Iterator
from typing import Any

import pytest
from evasions import IS_PROMPT
from guarded_stand import GuardedStand, Target
from mlflow.entities.model_registry import ModelVersionTag

from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import TAG_ATTESTATION, TAG_VERDICT


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
