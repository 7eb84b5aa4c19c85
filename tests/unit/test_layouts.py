"""Each tree that MLflow, a Trainer, PEFT or save_pretrained writes is located; what is open is said, not guessed."""

import json
from pathlib import Path

import pytest
from checkpoint_folders import EMBEDDING, Q, codes, copied, message, model_folder, open_weights, rewritten, sharded
from safetensors.torch import save_file

from gate.domain.checkpoint import Layout
from gate.domain.errors import InvalidInput, NotFound, NotMeasurable
from gate.domain.evidence import DefectCode
from tasks.checkpoints import SafetensorsWeights, load_model, locate
from tasks.layouts import Located


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("layouts") / "plain")


def adapter_files(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").touch()
    return folder


def mlmodel(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(text)
    return folder


def test_a_plain_folder_is_located(plain: Path) -> None:
    found = locate(plain)
    assert (found.layout, found.weights, found.tokenizer) == (Layout.FULL, (plain / "model.safetensors",), plain)
    assert found.config["model_type"] == "llama"
    assert found.defects == ()


def test_a_sharded_folder_is_located(plain: Path, tmp_path: Path) -> None:
    found = locate(sharded(copied(plain, tmp_path / "s"), 3))
    assert found.layout is Layout.SHARDED
    assert [p.name for p in found.weights] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


def test_a_single_file_goes_before_an_index_as_in_transformers(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path / "both")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "other.safetensors"}}')
    assert locate(folder).weights == (folder / "model.safetensors",)


def test_the_trainers_artifacts_are_located_however_deep(plain: Path, tmp_path: Path) -> None:
    copied(plain, tmp_path / "artifacts" / "model_dir")
    mlmodel(tmp_path, "flavors: {python_function: {loader_module: mlflow.pyfunc.model}}")
    assert locate(tmp_path).weights == (tmp_path / "artifacts" / "model_dir" / "model.safetensors",)


def test_the_model_at_the_root_goes_before_its_intermediate_checkpoints(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path / "run")
    copied(plain, folder / "checkpoint-500")
    assert locate(folder).weights == (folder / "model.safetensors",)


def test_two_models_side_by_side_are_not_guessed_between(plain: Path, tmp_path: Path) -> None:
    copied(plain, tmp_path / "checkpoint-500")
    copied(plain, tmp_path / "checkpoint-900")
    found = locate(tmp_path)
    assert found.weights == ()
    assert "checkpoint-500/, checkpoint-900/" in message(found, DefectCode.NOT_MEASURABLE)


def test_the_mlmodel_file_says_which_folder_is_served(plain: Path, tmp_path: Path) -> None:
    mlmodel(tmp_path, "flavors: {transformers: {model_binary: served}}")
    copied(plain, tmp_path / "model")
    copied(plain, tmp_path / "served")
    copied(plain, tmp_path / "components" / "tokenizer")
    found = locate(tmp_path)
    assert found.weights == (tmp_path / "served" / "model.safetensors",)
    assert found.tokenizer == tmp_path / "components" / "tokenizer"


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "a/../../b"])
def test_an_mlmodel_file_cannot_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    mlmodel(tmp_path, f"flavors: {{transformers: {{model_binary: {path}}}}}")
    assert codes(locate(tmp_path)) == {DefectCode.ARTIFACTS_UNREADABLE}


def test_a_plain_adapter_folder_is_located(tmp_path: Path) -> None:
    found = locate(adapter_files(tmp_path / "a"))
    assert (found.layout, found.adapter, found.weights) == (Layout.ADAPTER, tmp_path / "a", ())


def test_an_adapter_logged_with_its_base_is_the_adapter(plain: Path, tmp_path: Path) -> None:
    mlmodel(tmp_path, "flavors: {transformers: {model_binary: model, peft_adaptor: peft}}")
    copied(plain, tmp_path / "model")
    found = locate(adapter_files(tmp_path / "peft").parent)
    assert (found.layout, found.adapter) == (Layout.ADAPTER, tmp_path / "peft")
    assert found.weights == ()
    assert found.shipped_base == (tmp_path / "model" / "model.safetensors",)


def test_adapter_files_beside_a_model_are_not_guessed_between(plain: Path, tmp_path: Path) -> None:
    found = locate(adapter_files(copied(plain, tmp_path / "both")))
    assert found.layout is Layout.UNKNOWN
    assert "found both" in message(found, DefectCode.NOT_MEASURABLE)


def test_an_adapter_without_its_weights_is_incomplete(tmp_path: Path) -> None:
    (adapter_files(tmp_path) / "adapter_model.safetensors").unlink()
    assert codes(locate(tmp_path)) == {DefectCode.ARTIFACTS_MISSING}


def test_an_empty_folder_has_missing_artifacts(tmp_path: Path) -> None:
    assert "wait for the upload" in message(locate(tmp_path), DefectCode.ARTIFACTS_MISSING)


def test_no_folder_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        locate(tmp_path / "gone")


def test_pickled_weights_are_not_weights(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert codes(locate(folder)) == {DefectCode.ARTIFACTS_MISSING}


def test_a_lost_shard_is_named(plain: Path, tmp_path: Path) -> None:
    folder = sharded(copied(plain, tmp_path / "s"), 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    found = locate(folder)
    assert found.weights == ()
    assert "model-00002-of-00003.safetensors" in message(found, DefectCode.ARTIFACTS_MISSING)


@pytest.mark.parametrize("index", ["{}", "[1]", "{", '{"weight_map": {}}', '{"weight_map": {"w": 1}}'])
def test_a_broken_index_is_unreadable(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert DefectCode.ARTIFACTS_UNREADABLE in codes(locate(tmp_path))


def test_a_shard_outside_the_folder_is_refused(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    index = {"weight_map": {"w": "../plain/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert locate(folder).weights == ()
    assert codes(locate(folder)) == {DefectCode.ARTIFACTS_UNREADABLE}


def test_a_reference_without_weights_cannot_be_measured(tmp_path: Path) -> None:
    mlmodel(tmp_path, "flavors: {transformers: {source_model_name: org/model}}")
    assert "org/model" in message(locate(tmp_path), DefectCode.NOT_MEASURABLE)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'"text"', b" " * (17 << 20)])
def test_a_broken_config_is_unreadable(plain: Path, tmp_path: Path, content: bytes) -> None:
    folder = copied(plain, tmp_path / "c")
    (folder / "config.json").write_bytes(content)
    assert codes(locate(folder)) == {DefectCode.ARTIFACTS_UNREADABLE}


def test_a_yaml_file_that_makes_objects_is_not_obeyed(tmp_path: Path) -> None:
    mlmodel(tmp_path, "!!python/object/apply:os.mkdir [made]")
    assert DefectCode.ARTIFACTS_UNREADABLE in codes(locate(tmp_path))


def test_sharded_weights_are_the_same_weights(plain: Path, tmp_path: Path) -> None:
    one, many = open_weights(plain), open_weights(sharded(copied(plain, tmp_path / "s"), 4))
    assert one.names() == many.names()
    assert all(one.tensor(name).equal(many.tensor(name)) for name in one.names())


def test_a_tied_head_is_the_embedding_under_another_name(plain: Path, tmp_path: Path) -> None:
    stored = rewritten(copied(plain, tmp_path / "s"), lambda t: t | {"lm_head.weight": t[EMBEDDING].clone()})
    for weights in (open_weights(plain), open_weights(stored)):
        assert "lm_head.weight" not in weights.names()
        assert weights.tensor("lm_head.weight").equal(weights.tensor(EMBEDDING))


def test_a_head_that_differs_is_a_tensor_of_its_own_though_configured_as_tied(plain: Path, tmp_path: Path) -> None:
    stored = rewritten(copied(plain, tmp_path / "s"), lambda t: t | {"lm_head.weight": t[EMBEDDING] + 1})
    assert "lm_head.weight" in open_weights(stored).names()


def test_an_untied_head_equal_to_the_embedding_stays_a_tensor(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "untied", tied=False)
    rewritten(folder, lambda t: t | {"lm_head.weight": t[EMBEDDING].clone()})
    assert "lm_head.weight" in open_weights(folder).names()


def test_one_tensor_in_two_shards_is_refused(plain: Path, tmp_path: Path) -> None:
    folder = sharded(copied(plain, tmp_path / "s"), 2)
    first, second = (folder / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    save_file({Q: open_weights(plain).tensor(Q)}, first)
    save_file({Q: open_weights(plain).tensor(Q)}, second)
    with pytest.raises(InvalidInput, match="found in"):
        open_weights(folder)


def test_a_loaded_model_has_the_files_weights_tied_and_asleep(plain: Path) -> None:
    model, tokenizer = load_model(locate(plain))
    weights = open_weights(plain)
    assert not model.training
    assert all(model.state_dict()[name].equal(weights.tensor(name)) for name in weights.names())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer("ab")["input_ids"] == tokenizer.convert_tokens_to_ids(["a", "b"])


def test_a_model_is_loaded_from_its_located_weights_and_not_from_adapters_beside_them(
    plain: Path, tmp_path: Path
) -> None:
    folder = copied(plain, tmp_path / "m")
    found = locate(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/nowhere"}))
    model, _ = load_model(found)
    assert model.state_dict()[Q].equal(open_weights(plain).tensor(Q))


def test_a_model_that_lacks_a_tensor_is_not_filled_up_with_random_numbers(plain: Path, tmp_path: Path) -> None:
    folder = rewritten(copied(plain, tmp_path / "m"), lambda t: {k: v for k, v in t.items() if k != Q})
    with pytest.raises(NotMeasurable, match="q_proj"):
        load_model(locate(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_checkpoints_own_is_never_loaded(plain: Path, tmp_path: Path, name: str) -> None:
    folder = copied(plain, tmp_path / "m")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    settings = json.loads((folder / name).read_text())
    auto_map = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", None]}
    (folder / name).write_text(json.dumps(settings | {"auto_map": auto_map}))
    with pytest.raises(NotMeasurable, match="auto_map"):
        load_model(locate(folder))
    assert not (tmp_path / "run").exists()


def test_an_adapter_alone_has_no_weights_to_open(tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable):
        SafetensorsWeights.open(Located(root=tmp_path, layout=Layout.ADAPTER))
