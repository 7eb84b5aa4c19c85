"""What the chart renders is valid for Kubernetes and for the operators it speaks to."""

import runpy
from collections.abc import Mapping
from importlib import import_module
from itertools import chain
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from rendered_chart import (
    CHART,
    EXAMPLES,
    ROOT,
    Manifest,
    component,
    container,
    helm,
    of_kind,
    pods,
    rendered,
    template,
)

OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
CUSTOM = {
    "cert_manager.v1": ("Certificate", "Issuer"),
    "keda.v1alpha1": ("ScaledJob", "ScaledObject", "TriggerAuthentication"),
    "prometheus_operator.v1": ("PodMonitor", "PrometheusRule", "ServiceMonitor"),
}
"""The operators' kinds that the chart uses, by the module of cloudcoil that has their models."""
NAME = {"type": "string", "minLength": 1, "maxLength": 253}
# What the Gateway API's v1 says of the fields that the chart uses; there is no package of its models.
ROUTE = {
    "type": "object",
    "required": ["parentRefs", "hostnames", "rules"],
    "additionalProperties": False,
    "properties": {
        "parentRefs": {
            "type": "array",
            "maxItems": 32,
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"name": NAME, "namespace": NAME, "sectionName": NAME},
            },
        },
        "hostnames": {
            "type": "array",
            "maxItems": 16,
            "items": {"pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        },
        "rules": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "matches": {
                        "items": {
                            "additionalProperties": False,
                            "properties": {
                                "path": {
                                    "additionalProperties": False,
                                    "properties": {
                                        "type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                                        "value": {"type": "string", "pattern": "^/"},
                                    },
                                }
                            },
                        }
                    },
                    "backendRefs": {
                        "items": {
                            "required": ["name", "port"],
                            "additionalProperties": False,
                            "properties": {"name": NAME, "port": {"type": "integer", "minimum": 1, "maximum": 65535}},
                        }
                    },
                },
            },
        },
    },
}
KNOWN_OTHERWISE = {*chain.from_iterable(CUSTOM.values()), "HTTPRoute"}

each_example = pytest.mark.parametrize("example", EXAMPLES)


def without_nothing(value: Any) -> Any:
    """The document without empty fields, which models leave out."""
    if isinstance(value, Mapping):
        return {k: without_nothing(v) for k, v in value.items() if v not in (None, {}, [])}
    return [without_nothing(v) for v in value] if isinstance(value, list) else value


def without_quantities(value: Any) -> Any:
    """The document without requests and limits: the models cannot read `cpu: "4"`, which Kubernetes' own schemas can."""
    if isinstance(value, Mapping):
        return {k: without_quantities(v) for k, v in value.items() if k not in ("limits", "requests")}
    return [without_quantities(v) for v in value] if isinstance(value, list) else value


@each_example
def test_an_example_passes_helms_linter(example: str) -> None:
    linted = helm("lint", "--strict", CHART, "--values", CHART / "ci" / f"{example}-values.yaml")

    assert linted.returncode == 0, linted.stdout


@pytest.fixture(scope="module")
def models() -> Mapping[str, Any]:
    """The operators' kinds and their models: seconds of importing, spared to whoever only collects the tests."""
    return {
        kind: getattr(import_module(f"cloudcoil.models.{module}"), kind)
        for module, kinds in CUSTOM.items()
        for kind in kinds
    }


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@each_example
def test_what_an_example_renders_is_valid_to_the_field(example: str, version: str) -> None:
    for manifest in rendered(example):
        if manifest["kind"] not in KNOWN_OTHERWISE:
            kubernetes_validate.validate(manifest, version, strict=True)


@each_example
def test_what_an_example_renders_for_operators_fits_their_models_and_has_no_unknown_field(
    example: str, models: Mapping[str, Any]
) -> None:
    for manifest in rendered(example):
        if manifest["kind"] in models:
            shown = without_quantities(manifest)
            read = models[manifest["kind"]].model_validate(shown)
            written = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
            assert without_nothing(written) == without_nothing(shown)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_pods_that_keda_starts_are_valid_to_the_field(version: str) -> None:
    (scaled,) = of_kind(rendered("gateway"), "ScaledJob").values()
    target = scaled["spec"]["jobTargetRef"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "made-by-keda"}, "spec": dict(target)}

    kubernetes_validate.validate(job, version, strict=True)
    assert target["template"]["spec"]["restartPolicy"] == "Never"


def test_a_route_of_the_gateway_api_is_of_its_shape_and_leads_to_the_api() -> None:
    manifests = rendered("gateway")
    (route,) = of_kind(manifests, "HTTPRoute").values()
    jsonschema.validate(route["spec"], ROUTE)
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    ports = of_kind(manifests, "Service")[backend["name"]]["spec"]["ports"]

    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert backend["port"] in {port["port"] for port in ports}
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]


def test_the_examples_cover_every_template_and_every_operator() -> None:
    manifests = [manifest for example in EXAMPLES for manifest in rendered(example)]

    assert set(chain.from_iterable(CUSTOM.values())) <= {m["kind"] for m in manifests}
    done = [template("--values", CHART / "ci" / f"{example}-values.yaml").stdout for example in EXAMPLES]
    for file in sorted((CHART / "templates").rglob("*.yaml")):
        if file.name != "validate.yaml":
            assert any(f"# Source: basin-gate/{file.relative_to(CHART)}" in text for text in done), file


def test_the_oldest_version_that_is_checked_is_the_oldest_that_the_chart_installs_on() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


@each_example
def test_names_are_distinct_within_a_kind_and_short_enough_for_a_label(example: str) -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in rendered(example)]

    assert len(names) == len(set(names))
    assert max(len(name) for _, name in names) <= 63


@each_example
def test_everything_that_selects_pods_selects_some(example: str) -> None:
    manifests = rendered(example)
    labels = [metadata["labels"] for _, metadata, _ in pods(manifests)]

    def hits(selector: Mapping[str, str]) -> bool:
        return any(selector.items() <= each.items() for each in labels)

    for kind in ("PodDisruptionBudget", "PodMonitor", "Deployment"):
        for name, manifest in of_kind(manifests, kind).items():
            assert hits(manifest["spec"]["selector"]["matchLabels"]), (kind, name)
    for name, service in of_kind(manifests, "Service").items():
        assert hits(service["spec"]["selector"]), name
    for name, policy in of_kind(manifests, "NetworkPolicy").items():
        assert hits(policy["spec"]["podSelector"]["matchLabels"]), name


@each_example
def test_a_service_leads_to_a_port_that_its_pods_have(example: str) -> None:
    manifests = rendered(example)
    for service in of_kind(manifests, "Service").values():
        spec = component(manifests, service["spec"]["selector"]["app.kubernetes.io/component"])
        ports = {port["name"] for port in container(spec)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@each_example
def test_whatever_is_scaled_exists_and_is_not_given_a_number_by_the_chart_too(example: str) -> None:
    manifests = rendered(example)
    scaled = {
        s["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for s in of_kind(manifests, kind).values()
    }
    deployments = of_kind(manifests, "Deployment")

    assert scaled <= deployments.keys()
    assert {name for name, d in deployments.items() if "replicas" not in d["spec"]} == scaled


@each_example
def test_each_mounted_object_is_rendered_or_named_in_the_values(example: str) -> None:
    manifests = rendered(example)
    values = (CHART / "ci" / f"{example}-values.yaml").read_text()
    given = {
        "configMap": of_kind(manifests, "ConfigMap"),
        "secret": of_kind(manifests, "Secret"),
        "persistentVolumeClaim": of_kind(manifests, "PersistentVolumeClaim"),
    }
    made_by_operators = {c["spec"]["secretName"] for c in of_kind(manifests, "Certificate").values()}
    for _, _, spec in pods(manifests):
        for volume in spec.get("volumes", []):
            for kind, known in given.items():
                if kind in volume:
                    reference = volume[kind]
                    name = reference.get("name") or reference.get("secretName") or reference.get("claimName")
                    assert name in known or name in made_by_operators or name in values, name


@each_example
def test_each_mount_has_its_volume(example: str) -> None:
    for name, _, spec in pods(rendered(example)):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        assert {m["name"] for m in container(spec).get("volumeMounts", [])} == volumes, name


def test_the_shipped_alerts_are_in_the_rule_unchanged_with_the_runbooks_where_people_read_them() -> None:
    (rule,) = of_kind(rendered("production"), "PrometheusRule").values()
    text = (CHART / "files" / "alerts.yaml").read_text()
    base = "https://git.example.org/basin-gate/blob/main/"

    assert rule["spec"] == yaml.safe_load(text.replace("runbook_url: docs/", f"runbook_url: {base}docs/"))


def test_the_readme_is_what_the_schema_and_the_defaults_say() -> None:
    page = runpy.run_path(str(ROOT / "charts" / "generate_readme.py"))["page"]()

    assert (CHART / "README.md").read_text() == page, "run: python charts/generate_readme.py"


def test_the_charts_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert f'version = "{chart["appVersion"]}"\n' in (ROOT / "pyproject.toml").read_text()


def rules(configuration: Manifest) -> Any:
    return [webhook["rules"] for webhook in configuration["webhooks"]]


def test_admission_is_asked_about_what_the_documentation_says() -> None:
    page = (ROOT / "docs" / "howto" / "admit-only-approved-models.md").read_text()
    shown = next(part for part in page.split("```") if "ValidatingWebhookConfiguration" in part)
    (made,) = of_kind(rendered("production"), "ValidatingWebhookConfiguration").values()

    assert rules(made) == rules(yaml.safe_load(shown.removeprefix("yaml")))
