"""Which models a Kubernetes resource would serve, whatever its kind and however they are written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.domain.admission import asked_references, references
from gate.domain.errors import InvalidInput

GOLDEN = Path(__file__).parents[1] / "golden" / "admission"
EXPECTED: dict[str, tuple[str, ...]] = {
    "deployment_annotation": ("models:/my-llm@champion",),
    "inferenceservice_storage_uri": ("models:/my-llm/3",),
    "job_environment": ("models:/my-llm/3",),
    "pod_environment": ("models:/my-llm@champion",),
    "pod_shell_command": ("models:/my-llm/3",),
    "pod_vllm_argument": ("models:/my-llm/3",),
    "pod_without_a_model": (),
    "seldondeployment_graph": ("models:/my-llm/3", "models:/my-llm@challenger"),
    "statefulset_argument": ("models:/my-llm/3",),
    "statefulset_deleted": (),
    "statefulset_other_model": ("models:/my-llm/4",),
    "statefulset_scaled": (),
}


def pod(**container: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", **container}]}}


def test_each_kind_of_review_asks_for_the_models_it_brings_in() -> None:
    asked = {}
    for file in GOLDEN.glob("*.json"):
        request = json.loads(file.read_text())["request"]
        asked[file.stem] = asked_references(request["operation"], request["object"] or {}, request["oldObject"] or {})
    assert asked == EXPECTED


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models:/help desk – 模型 ✓/3", "models:/help desk – 模型 ✓/3"),
        ("--model=models:/a/3", "models:/a/3"),
        ("--model='models:/a b/3'", "models:/a b/3"),
        ("--model models:/a/3 --port 80", "models:/a/3"),
        ('{"uri": "models:/a/3"}', "models:/a/3"),
        ("MODELS:/a/3", "MODELS:/a/3"),
        ("models://profile@databricks/a/3", "models://profile@databricks/a/3"),
        ("models:/a/3/", "models:/a/3/"),
        ("URI=models:/a/latest;serve", "models:/a/latest"),
        ("models:/", "models:/"),
    ],
)
def test_a_reference_is_seen_in_whatever_it_stands(text: str, found: str) -> None:
    for resource in (pod(args=[text]), pod(command=["sh", "-c", text]), pod(env=[{"name": "X", "value": text}])):
        assert references(resource) == (found,)


@pytest.mark.parametrize("text", ["/models/a/3", "s3://models/a", "mymodels:/a/3", "models", "model: /a"])
def test_other_texts_are_no_references(text: str) -> None:
    assert references(pod(args=[text])) == ()


def test_the_annotation_is_asked_for_even_where_it_is_no_reference() -> None:
    annotated = {"metadata": {"annotations": {"basin-gate.dev/model": "my-llm"}}}

    assert references(annotated) == ("my-llm",)
    assert references({"spec": {"predictor": annotated["metadata"]}}) == ("my-llm",)
    assert references({"metadata": {"annotations": {"note": "was models:/a/1"}}, "spec": {}}) == ()
    assert references({"metadata": None, "spec": {"annotations": ["models:/a/1"]}}) == ("models:/a/1",)


def test_other_operations_ask_nothing() -> None:
    assert asked_references("CONNECT", pod(args=["models:/a/1"]), {}) == ()


def test_a_resource_of_very_many_models_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 20 model references"):
        asked_references("CREATE", pod(args=[f"models:/a/{n}" for n in range(1, 30)]), {})


def test_a_document_of_any_depth_is_read() -> None:
    deep: Any = "models:/a/1"
    for _ in range(100_000):
        deep = [deep]
    assert references({"spec": deep}) == ("models:/a/1",)
    while isinstance(deep, list):
        deep = deep.pop()


KEYS = st.sampled_from(["metadata", "annotations", "basin-gate.dev/model", "spec", "status", "x"])
TEXTS = (
    st.none() | st.integers() | st.sampled_from(["", "models:/", "models:/b/2", "--m=models:/c d@e", "sh models:/f/1;"])
)


@given(
    st.dictionaries(KEYS, st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner)))
)
def test_no_document_makes_the_reading_crash(document: dict[str, Any]) -> None:
    assert all(isinstance(text, str) for text in references(document))
    assert references({**document, "spec": {"x": "models:/a/1"}}).count("models:/a/1") == 1
