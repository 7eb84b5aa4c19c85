"""The trees that MLflow itself writes are located, measured, and say what they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import peft
import pytest
import torch
from checkpoint_folders import as_base, codes, message, model_folder
from tiny_language import tiny_tokenizer
from transformers import AutoModelForCausalLM

from gate.domain.checkpoint import Layout
from gate.domain.evidence import DefectCode, Name
from gate.domain.lineage import resolve_lineage
from tasks.checkpoints import load_model, locate
from tasks.static_stage import inspect_folder


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("trees") / "base")


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A tracking store of this module's own, and the former one afterwards."""
    store = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    mlflow.create_experiment("trees", artifact_location=(store / "artifacts").as_uri())
    mlflow.set_experiment("trees")
    yield
    mlflow.set_tracking_uri(before)


def logged(model: Any, **choices: Any) -> Path:
    """The folder that ``mlflow.transformers.log_model`` made of a model."""
    with mlflow.start_run():
        info = mlflow.transformers.log_model(
            {"model": model, "tokenizer": tiny_tokenizer()},
            name="model",
            task="text-generation",
            pip_requirements=["transformers"],
            **choices,
        )
    return Path(mlflow.artifacts.download_artifacts(info.model_uri))


def fine_tuned(base_folder: Path) -> Any:
    """The base with one weight matrix doubled."""
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(2)
    return model


def adapted(base_folder: Path) -> Any:
    """The base under a LoRA adapter whose factors are not zero."""
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    return model


def norm(found: Any) -> float:
    return next(m.estimate.value for m in found.measurements if m.name is Name.DISPLACEMENT_NORM)


def test_a_full_model_logged_by_mlflow_is_measured(base_folder: Path) -> None:
    model = fine_tuned(base_folder)
    tree = logged(model, metadata={"base_model": "models:/base/1"})
    located, found = locate(tree), inspect_folder(tree, as_base(base_folder))
    assert located.layout is Layout.FULL
    assert located.weights == (tree / "model" / "model.safetensors",)
    assert located.tokenizer == tree / "components" / "tokenizer"
    assert found.defects == ()
    half = model.model.layers[0].self_attn.q_proj.weight.detach().double().norm() / 2
    assert norm(found) == pytest.approx(float(half), rel=1e-6)
    assert resolve_lineage(found.hints).found_by == "MLmodel metadata.base_model"
    loaded, tokenizer = load_model(located)
    inputs = tokenizer("abc", return_tensors="pt")["input_ids"]
    assert torch.equal(loaded(inputs).logits, model(inputs).logits)


def test_an_adapter_logged_with_a_reference_to_its_base_is_measured(base_folder: Path) -> None:
    tree = logged(adapted(base_folder), base_model_path=str(base_folder))
    located, found = locate(tree), inspect_folder(tree, as_base(base_folder))
    assert (located.layout, located.adapter) == (Layout.ADAPTER, tree / "peft")
    assert found.defects == ()
    assert norm(found) > 0
    assert resolve_lineage(found.hints).reference == str(base_folder)


def test_an_adapter_logged_with_its_base_is_measured_and_known_to_be_served_wrongly(base_folder: Path) -> None:
    tree = logged(adapted(base_folder))
    located, found = locate(tree), inspect_folder(tree, as_base(base_folder))
    assert located.layout is Layout.ADAPTER
    assert located.shipped_base == (tree / "model" / "model.safetensors",)
    assert norm(found) > 0
    assert codes(found) == {DefectCode.NOT_MEASURABLE}
    assert "q_proj.base_layer.weight" in message(found, DefectCode.NOT_MEASURABLE)


def test_an_adapter_logged_with_another_base_is_found_out(base_folder: Path, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", seed=9)
    found = inspect_folder(logged(adapted(other)), as_base(base_folder))
    assert DefectCode.BASE_MISMATCH in codes(found)
