"""The guarded store on real databases, in this process: configuration, rotation, dry run, tags."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import flask
import pytest
from approvals import a_key, an_attestation
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException

from gate.adapters.policy_files import DEFAULT, SHIPPED
from gate.domain.checkpoint import version_identity
from gate.registry_guard import GuardedWorkspaceStore, GuardMixin, guarded_store

Store = Callable[..., GuardMixin]


DATABASES = ("sqlite", "postgresql", "mariadb")


@pytest.fixture(scope="module", params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"gate+{empty(request, tmp_path_factory.mktemp('registry'))}"


def empty(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty database of the kind that the test is to run on."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/registry.db"
    server = request.getfixturevalue("postgres" if request.param == "postgresql" else "mariadb")
    return str(server.empty_database())


@pytest.fixture
def store(database: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Makes a store on the module's database under the given settings."""

    def make(**settings: object) -> GuardMixin:
        for name, value in settings.items():
            monkeypatch.setenv(f"GATE_{name.upper()}", str(value))
        return guarded_store(database)

    return make


def register(store: GuardMixin, name: str, source: str = "s3://bucket/a", **tags: str) -> str:
    """A version of a new registered model; its identity."""
    store.create_registered_model(name)
    tag_list = [ModelVersionTag(key.replace("_", "."), value) for key, value in tags.items()]
    version = store.create_model_version(name, source, tags=tag_list)
    return version_identity(name, str(version.version), version.creation_timestamp, source)


def attest(store: GuardMixin, name: str, value: str) -> None:
    store.set_model_version_tag(name, "1", ModelVersionTag("gate.vsa", value))


def test_without_trusted_keys_nothing_is_promoted_and_the_refusal_names_the_setting(
    store: Store, tmp_path: Path
) -> None:
    guarded, (private, _) = store(), a_key(tmp_path)
    attest(guarded, "keyless", an_attestation(private, register(guarded, "keyless")))

    with pytest.raises(MlflowException, match="set GATE_TRUSTED_KEYS_FILE") as refused:
        guarded.set_registered_model_alias("keyless", "champion", "1")
    assert refused.value.get_http_status_code() == 403


@pytest.mark.parametrize(("name", "content"), [("absent", None), ("empty", b""), ("noise", b"not a key")])
def test_with_an_unreadable_key_file_nothing_is_promoted(
    store: Store, tmp_path: Path, name: str, content: bytes | None
) -> None:
    keys = tmp_path / "keys.pem"
    if content is not None:
        keys.write_bytes(content)
    guarded = store(trusted_keys_file=keys)
    register(guarded, name)

    with pytest.raises(MlflowException, match=r"keys\.pem: expected") as refused:
        guarded.set_registered_model_alias(name, "champion", "1")
    assert refused.value.get_http_status_code() == 403


def test_without_readable_policies_each_act_that_one_could_forbid_is_refused(store: Store, tmp_path: Path) -> None:
    register(store(), "lawless")
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: broken\nrulez: []\n")
    guarded = store(policies=policy)

    acts: list[Callable[[], object]] = [
        lambda: guarded.set_registered_model_alias("lawless", "harmless", "1"),
        lambda: guarded.transition_model_version_stage("lawless", "1", "Staging", False),
        lambda: guarded.create_model_version("lawless", "s3://bucket/b"),
        lambda: guarded.rename_registered_model("lawless", "other"),
    ]
    for act in acts:
        with pytest.raises(MlflowException, match=r"fails closed.*rulez") as refused:
            act()
        assert refused.value.get_http_status_code() == 403
    assert guarded.get_model_version("lawless", "1").source == "s3://bucket/a"


def test_a_policy_that_breaks_while_the_server_runs_refuses_until_it_is_mended(store: Store, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT.read_text())
    guarded = store(policies=policy)
    register(guarded, "interrupted")
    guarded.set_registered_model_alias("interrupted", "challenger", "1")

    policy.write_text("name: [")
    for _ in range(2):
        with pytest.raises(MlflowException, match="fails closed"):
            guarded.set_registered_model_alias("interrupted", "challenger", "1")
    policy.unlink()
    with pytest.raises(MlflowException, match="fails closed"):
        guarded.set_registered_model_alias("interrupted", "challenger", "1")

    policy.write_text(DEFAULT.read_text())
    guarded.set_registered_model_alias("interrupted", "challenger", "1")


def test_a_rotated_key_holds_without_a_restart(store: Store, tmp_path: Path) -> None:
    (old, old_public), (new, new_public) = a_key(tmp_path, "old"), a_key(tmp_path, "new")
    keys = tmp_path / "keys.pem"
    keys.write_bytes(old_public.read_bytes())
    guarded = store(trusted_keys_file=keys)
    identity = register(guarded, "rotated")
    attest(guarded, "rotated", an_attestation(new, identity))
    with pytest.raises(MlflowException, match="signature by a trusted key"):
        guarded.set_registered_model_alias("rotated", "champion", "1")

    keys.write_bytes(old_public.read_bytes() + new_public.read_bytes())
    guarded.set_registered_model_alias("rotated", "champion", "1")

    attest(guarded, "rotated", an_attestation(old, identity))
    guarded.set_registered_model_alias("rotated", "production", "1")
    keys.write_bytes(new_public.read_bytes())
    with pytest.raises(MlflowException, match="signature by a trusted key"):
        guarded.set_registered_model_alias("rotated", "approved", "1")


def test_a_dry_run_policy_lets_pass_and_logs_what_it_would_refuse(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = store(policies=SHIPPED / "observe.yaml")
    register(guarded, "watched")

    with caplog.at_level(logging.WARNING, logger="basin_gate.guard"):
        guarded.set_registered_model_alias("watched", "champion", "1")

    assert guarded.get_model_version_by_alias("watched", "champion").aliases == ["champion"]
    assert "would be refused: setting alias 'champion' on version '1' of 'watched'" in caplog.text


@pytest.mark.parametrize("mode", ["warn", "dry_run"])
def test_a_protected_name_that_is_only_watched_lets_pass_and_logs_what_it_would_refuse_and_the_others_refuse(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    policy = tmp_path / "policy.yaml"
    watched = f"stages: [Production]\n  registered_models: [prod.llm]\n  modes: {{champion: {mode}, prod.llm: {mode}}}"
    policy.write_text(DEFAULT.read_text().replace("stages: [Production]", watched))
    guarded, name = store(policies=policy, trusted_keys_file=a_key(tmp_path)[1]), f"watched by name {mode}"
    register(guarded, name)

    with caplog.at_level(logging.WARNING, logger="basin_gate.guard"):
        guarded.set_registered_model_alias(name, "Champion", "1")
        if "prod.llm" not in {model.name for model in guarded.search_registered_models()}:
            guarded.create_registered_model("prod.llm")
        guarded.create_model_version("prod.llm", "s3://bucket/anything")

    assert f"{mode.replace('_', ' ')} of policy default, would be refused: setting alias 'Champion'" in caplog.text
    assert "would be refused: creating a version of 'prod.llm'" in caplog.text
    for act in (
        lambda: guarded.set_registered_model_alias(name, "production", "1"),
        lambda: guarded.transition_model_version_stage(name, "1", "Production", False),
    ):
        with pytest.raises(MlflowException, match="is refused"):
            act()


def test_a_policy_guards_only_the_models_it_matches(store: Store, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT.read_text().replace('match: "true"', "match: version.name.startsWith('llm-')"))
    guarded = store(policies=policy)
    register(guarded, "llm-guarded")
    register(guarded, "sklearn-free")

    guarded.set_registered_model_alias("sklearn-free", "champion", "1")
    with pytest.raises(MlflowException, match="no key"):
        guarded.set_registered_model_alias("llm-guarded", "champion", "1")
    with pytest.raises(MlflowException, match="champion, protected by policy default"):
        guarded.rename_registered_model("sklearn-free", "llm-smuggled")


def test_an_approval_under_an_earlier_text_of_the_policy_counts_unless_told_otherwise(
    store: Store, tmp_path: Path
) -> None:
    private, public = a_key(tmp_path)
    guarded = store(trusted_keys_file=public)
    attest(guarded, "older", an_attestation(private, register(guarded, "older"), policy_digest="e" * 64))
    guarded.set_registered_model_alias("older", "champion", "1")

    strict = store(guard_current_policy_only=True)
    with pytest.raises(MlflowException, match="earlier text of policy default"):
        strict.set_registered_model_alias("older", "production", "1")


def test_result_tags_given_at_registration_are_dropped_and_the_owners_are_kept(store: Store) -> None:
    guarded = store()
    register(guarded, "self-praise", gate_verdict="approved", gate_base="models:/base/1", team="nlp")

    assert guarded.get_model_version("self-praise", "1").tags == {"gate.base": "models:/base/1", "team": "nlp"}


def test_only_named_users_write_the_gates_tags(store: Store) -> None:
    guarded = store(guard_tag_writers="gatebot, deputy")
    register(guarded, "tagged")
    verdict, base = ModelVersionTag("gate.verdict", "approved"), ModelVersionTag("gate.base", "models:/base/1")
    app = flask.Flask("mlflow")

    with app.test_request_context():
        flask.g.mlflow_authenticated_user = "mallory"
        guarded.set_model_version_tag("tagged", "1", base)
        with pytest.raises(MlflowException, match="written by deputy, gatebot only"):
            guarded.set_model_version_tag("tagged", "1", verdict)
        with pytest.raises(MlflowException, match="is refused"):
            guarded.delete_model_version_tag("tagged", "1", "gate.vsa")
    with app.test_request_context():
        flask.g.mlflow_authenticated_user = "gatebot"
        guarded.set_model_version_tag("tagged", "1", verdict)

    assert guarded.get_model_version("tagged", "1").tags == {"gate.verdict": "approved", "gate.base": "models:/base/1"}


def test_an_alias_is_refused_and_after_an_approval_granted(store: Store, tmp_path: Path) -> None:
    private, public = a_key(tmp_path)
    guarded = store(trusted_keys_file=public)
    identity = register(guarded, "granted")
    with pytest.raises(MlflowException, match="no verdict yet"):
        guarded.set_registered_model_alias("granted", "Champion", "1")

    attest(guarded, "granted", an_attestation(private, identity))
    guarded.set_registered_model_alias("granted", "champion", "1")

    assert guarded.get_model_version_by_alias("granted", "champion").aliases == ["champion"]


def test_with_workspaces_on_the_workspace_store_is_guarded(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")

    assert isinstance(guarded_store(database), GuardedWorkspaceStore)


PLACES = {
    "alias": lambda store, name: store.set_registered_model_alias(name, "champion", "2"),
    "alias in another case": lambda store, name: store.set_registered_model_alias(name, "CHAMPION", "2"),
    "alias with accents": lambda store, name: store.set_registered_model_alias(name, "chämpiön", "2"),
    "alias in full width": lambda store, name: store.set_registered_model_alias(name, "ｃｈａｍｐｉｏｎ", "2"),
    "alias on a number with a zero": lambda store, name: store.set_registered_model_alias(name, "champion", "02"),
    "stage": lambda store, name: store.transition_model_version_stage(name, "2", "production", False),
    "stage, the approved one archived": lambda store, name: store.transition_model_version_stage(
        name, "2", "Production", True
    ),
    "copy": lambda store, name: store.create_model_version("prod.llm", f"models:/{name}/2"),
    "anything": lambda store, name: store.create_model_version("prod.llm", "s3://bucket/evil"),
    "rename onto": lambda store, name: store.rename_registered_model(f"{name} other", "Prod.LLM"),
    "rename away": lambda store, name: store.rename_registered_model(name, "elsewhere"),
}


@pytest.fixture(scope="module", params=DATABASES)
def evaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardMixin]:
    """A guarded store on each database, a model with an approved champion and an unapproved version 2 in it."""
    folder = tmp_path_factory.mktemp("evaded")
    private, public = a_key(folder)
    policy = folder / "policy.yaml"
    policy.write_text(
        DEFAULT.read_text().replace("stages: [Production]", "stages: [Production]\n  registered_models: [prod.llm]")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATE_TRUSTED_KEYS_FILE", str(public))
        patch.setenv("GATE_POLICIES", str(policy))
        made = guarded_store(f"gate+{empty(request, folder)}")
        attest(made, "evaded", an_attestation(private, register(made, "evaded")))
        made.create_model_version("evaded", "s3://bucket/bad")
        made.set_registered_model_alias("evaded", "champion", "1")
        for name in ("prod.llm", "evaded other"):
            made.create_registered_model(name)
        yield made
        made._dispose_engine()


@pytest.mark.parametrize("name", PLACES)
def test_each_way_to_promote_is_refused_on_each_database(evaded: GuardMixin, name: str) -> None:
    with pytest.raises(MlflowException, match=r"^\[basin-gate\] .* is refused: ") as refused:
        PLACES[name](evaded, "evaded")

    assert refused.value.get_http_status_code() == 403
    assert evaded.get_registered_model("evaded").aliases == {"champion": 1}
    assert {v.current_stage for v in evaded.get_latest_versions("evaded")} == {"None"}
    assert not evaded.get_latest_versions("prod.llm")
