"""The registry adapter against a real MLflow server."""

import json
import uuid
from pathlib import Path

import pytest
from held_ports import free_port
from mlflow import MlflowClient

from gate.adapters.mlflow_registry import WEBHOOK_NAME, MlflowRegistry
from gate.domain.enforcement import BEGIN, DescriptionBlock, RemoveAlias, RunRecord, SetAlias, SetTag
from gate.domain.errors import InvalidInput, NotFound, NotMeasurable, Unavailable
from gate.domain.events import SUBSCRIPTIONS
from gate.domain.promotion import Holding
from gate.settings import Settings

ODD_NAMES = ["a b c", "mödel ✓ 模型", 'it\'s 50% "off"', "dots.and-dashes_"]
SAFETENSORS = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"


@pytest.fixture
def client(mlflow_server):
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture
def settings(mlflow_server):
    return Settings(mlflow_tracking_uri=mlflow_server.uri, mlflow_experiment=f"gate {uuid.uuid4().hex[:6]}")


@pytest.fixture
def registry(settings):
    return MlflowRegistry(settings, upload_patience_s=0)


def unique(name: str = "model") -> str:
    return f"{name} {uuid.uuid4().hex[:8]}"


def upload(client: MlflowClient, tmp_path: Path, files: dict[str, bytes]) -> tuple[str, str]:
    """A run with these files under ``model``; the run's id and the source."""
    folder = tmp_path / uuid.uuid4().hex
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    run = client.create_run("0")
    if files:
        client.log_artifacts(run.info.run_id, str(folder), "model")
    return run.info.run_id, f"{run.info.artifact_uri}/model"


def register(client: MlflowClient, tmp_path: Path, name: str, files: dict[str, bytes] | None = None) -> str:
    run_id, source = upload(client, tmp_path, CHECKPOINT if files is None else files)
    client.create_registered_model(name)
    return str(client.create_model_version(name, source, run_id).version)


CHECKPOINT = {"config.json": b"{}", "model.safetensors": SAFETENSORS, "deep/er/notes ü.txt": b"x"}


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_a_model_of_any_name_is_read_written_and_fetched(client, registry, tmp_path, odd):
    name = unique(odd)
    number = register(client, tmp_path, name)
    version = registry.version(name, number)
    registry.apply(version, (SetTag("gate.verdict", "approved"), SetAlias("approved")))
    assert registry.version(name, number).tags["gate.verdict"] == "approved"
    assert registry.alias_of(name, "approved") == number
    fetched = registry.fetch(version, tmp_path / "fetched")
    assert {p.relative_to(fetched).as_posix() for p in fetched.rglob("*") if p.is_file()} == set(CHECKPOINT)


def test_a_versions_files_are_listed_with_their_sizes_only_where_mlflow_serves_them(client, registry, tmp_path):
    name = unique()
    number = register(client, tmp_path, name)
    client.create_model_version(name, "s3://bucket/elsewhere")
    assert registry.listing(registry.version(name, number)) == {path: len(c) for path, c in CHECKPOINT.items()}
    assert registry.listing(registry.version(name, "2")) is None


def test_a_version_that_is_not_there_is_not_found(registry):
    with pytest.raises(NotFound, match="nobody"):
        registry.version("nobody", "1")


def test_a_server_that_does_not_answer_is_unavailable():
    registry = MlflowRegistry(Settings(mlflow_tracking_uri=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable):
        registry.version("m", "1")


def test_a_tracking_address_that_is_no_server_is_refused():
    with pytest.raises(InvalidInput, match="URL"):
        MlflowRegistry(Settings(mlflow_tracking_uri="sqlite:///x.db"))


def test_versions_come_newest_first_and_stop_at_the_given_time(client, registry, tmp_path):
    name = unique()
    run_id, source = upload(client, tmp_path, {})
    client.create_registered_model(name)
    made = [client.create_model_version(name, source, run_id).creation_timestamp for _ in range(3)]
    found = [v for v in registry.versions() if v.name == name]
    assert [v.version for v in found] == ["3", "2", "1"]
    assert all(v.created_ms >= made[2] for v in registry.versions(since_ms=made[2]))


def test_a_version_hidden_by_a_prompts_tag_is_found_all_the_same(client, registry, tmp_path):
    name = unique("hidden")
    run_id, source = upload(client, tmp_path, {})
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, source, run_id)
    client.set_model_version_tag(name, "2", "mlflow.prompt.is_prompt", "true")
    assert name not in {v.name for v in registry.versions()}
    assert sorted(v.version for v in registry.hidden_versions() if v.name == name) == ["1", "2", "3"]
    assert registry.version(name, "2").name == name


def test_real_prompts_are_not_versions(client, registry):
    name = f"prompt-{uuid.uuid4().hex[:6]}"
    client.register_prompt(name, "Hello {{name}}")
    assert name not in {v.name for v in (*registry.versions(), *registry.hidden_versions())}


def test_aliases_of_a_model_dressed_up_as_a_prompt_are_seen(client, registry, tmp_path):
    name = unique()
    number = register(client, tmp_path, name)
    client.set_registered_model_alias(name, "champion", number)
    client.set_registered_model_tag(name, "mlflow.prompt.is_prompt", "true")
    models, after = registry.holdings("")
    assert (name in models, after) == (False, "dressed:")
    models, after = registry.holdings(after)
    assert Holding(name, "alias", "champion", number) in models[name]
    assert after == ""


def test_applying_twice_changes_nothing_and_leaves_the_owners_text(client, registry, tmp_path):
    name = unique()
    number = register(client, tmp_path, name)
    client.update_model_version(name, number, "The owner's *own* words.\n")
    actions = (
        SetTag("gate.verdict", "blocked"),
        DescriptionBlock("Basin Gate: blocked. Safety fell.", "Policy default"),
        SetAlias("approved"),
    )
    version = registry.version(name, number)
    registry.apply(version, actions)
    once = registry.version(name, number)
    registry.apply(version, actions)
    assert registry.version(name, number) == once
    assert once.description.startswith("The owner's *own* words.\n")
    assert once.description.count(BEGIN) == 1
    registry.apply(version, (RemoveAlias("approved"), RemoveAlias("approved")))
    assert registry.alias_of(name, "approved") is None


def a_record(**changes) -> RunRecord:
    given = {
        "key": uuid.uuid4().hex * 2,
        "name": "my-llm/3",
        "outcome": "blocked",
        "at_ms": 1_795_000_000_000,
        "params": {"policy": "default"},
        "metrics": {"retention/safety": -0.98, "retention/safety.lower": -1.0},
        "tags": {"gate.outcome": "blocked"},
        "artifacts": {"verdict.json": b"{}", "report.md": "# Blöcked".encode()},
    }
    return RunRecord(**(given | changes))


def test_an_evaluations_run_is_written_once_however_often_it_is_tried(client, registry):
    record = a_record()
    first, second = registry.write_run(record), registry.write_run(record)
    run = client.get_run(first)
    assert first == second
    assert run.data.metrics["retention/safety"] == -0.98
    assert {a.path for a in client.list_artifacts(first)} == {"verdict.json", "report.md"}
    assert run.info.status == "FINISHED"


def cut_off(*_: object) -> None:
    raise OSError("cut off")


def test_a_run_left_half_written_is_completed(client, registry, monkeypatch):
    record = a_record()
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifact", cut_off)
        with pytest.raises(Unavailable):
            registry.write_run(record)
    run_id = registry.write_run(record)
    assert {a.path for a in client.list_artifacts(run_id)} == {"verdict.json", "report.md"}


@pytest.mark.parametrize("as_source", ["mlflow-artifacts", "runs", "copy"])
def test_each_kind_of_source_is_fetched(client, registry, tmp_path, as_source):
    name = unique()
    run_id, artifacts = upload(client, tmp_path, CHECKPOINT)
    client.create_registered_model(name)
    source = {"mlflow-artifacts": artifacts, "runs": f"runs:/{run_id}/model", "copy": artifacts}[as_source]
    version = client.create_model_version(name, source, run_id)
    if as_source == "copy":
        version = client.copy_model_version(f"models:/{name}/{version.version}", unique())
    fetched = registry.fetch(registry.version(version.name, str(version.version)), tmp_path / "fetched")
    assert (fetched / "model.safetensors").read_bytes() == SAFETENSORS


def test_a_logged_models_files_and_parameters_are_found(client, registry, tmp_path):
    import mlflow

    run = client.create_run("0")
    client.log_param(run.info.run_id, "base_model", "models:/base/1")
    model = client.create_logged_model("0", name="tuned", source_run_id=run.info.run_id, params={"lr": "0.1"})
    folder = tmp_path / "files"
    folder.mkdir()
    for path in ("config.json", "model.safetensors"):
        (folder / path).write_bytes(CHECKPOINT[path])
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, mlflow.entities.LoggedModelStatus.READY)
    name = unique()
    client.create_registered_model(name)
    number = client.create_model_version(name, f"models:/{model.model_id}", model_id=model.model_id).version
    version = registry.version(name, str(number))
    assert registry.training_params(version) == {"base_model": "models:/base/1", "lr": "0.1"}
    assert (registry.fetch(version, tmp_path / "fetched") / "config.json").exists()


def test_a_version_without_files_is_not_found(client, registry, tmp_path):
    name = unique()
    number = register(client, tmp_path, name, files={})
    with pytest.raises(NotFound, match="upload"):
        registry.fetch(registry.version(name, number), tmp_path / "fetched")


def test_an_upload_still_running_is_left_alone_until_it_is_whole(client, settings, tmp_path):
    run_id, source = upload(client, tmp_path, {"config.json": b"{}", "model.safetensors.index.json": INDEX})
    name = unique()
    client.create_registered_model(name)
    version = str(client.create_model_version(name, source, run_id).version)
    registry = MlflowRegistry(settings, upload_patience_s=3600)
    for file in ("model-1.safetensors", "model-2.safetensors"):
        with pytest.raises(Unavailable, match="incomplete"):
            registry.fetch(registry.version(name, version), tmp_path / "fetched")
        (tmp_path / file).write_bytes(SAFETENSORS)
        client.log_artifact(run_id, str(tmp_path / file), "model")
    fetched = registry.fetch(registry.version(name, version), tmp_path / "fetched")
    assert len(list(fetched.glob("*.safetensors"))) == 2


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()


def test_a_version_deleted_and_made_again_is_not_fetched_for_the_old_one(client, registry, tmp_path):
    name = unique()
    number = register(client, tmp_path, name)
    old = registry.version(name, number)
    client.delete_registered_model(name)
    register(client, tmp_path, name)
    with pytest.raises(NotFound, match="made again"):
        registry.fetch(old, tmp_path / "fetched")


def test_a_checkpoint_over_the_size_limit_is_not_fetched(client, mlflow_server, tmp_path):
    name = unique()
    number = register(client, tmp_path, name)
    small = MlflowRegistry(Settings(mlflow_tracking_uri=mlflow_server.uri, max_artifact_bytes=5))
    with pytest.raises(NotMeasurable, match="GATE_MAX_ARTIFACT_BYTES"):
        small.fetch(small.version(name, number), tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_the_webhook_is_made_once_and_mended_when_changed_or_disabled(client, registry):
    url = "http://127.0.0.1:9/webhooks/mlflow"
    assert registry.ensure_webhook(url, "s1") == "created"
    assert registry.ensure_webhook(url, "s1") == "kept"
    assert registry.ensure_webhook(url + "2", "s1") == "repaired"
    hook = next(h for h in client.list_webhooks() if h.name == WEBHOOK_NAME)
    client.update_webhook(hook.webhook_id, status="DISABLED")
    assert registry.ensure_webhook(url + "2", "s1") == "repaired"
    mended = client.get_webhook(hook.webhook_id)
    assert mended.status.is_active()
    assert {str(e) for e in mended.events} == set(SUBSCRIPTIONS)
    client.delete_webhook(hook.webhook_id)
