"""The chart and the product mean the same: settings, commands, routes, ports, queues, what a worker does when told to stop."""

import json
import re
import runpy
import ssl
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from api_stand import EVERYBODY, a_stand
from cryptography import x509
from fastapi.testclient import TestClient
from rendered_chart import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    ROOT,
    Manifest,
    component,
    container,
    of_kind,
    pods,
    rendered,
    template,
)
from typer.core import TyperGroup

from gate.adapters.celery_queue import celery_app
from gate.adapters.oidc import roles_of
from gate.adapters.policy_files import load_policies
from gate.adapters.sentinel import Sentinel, sentinel_of
from gate.api.access import build_oidc
from gate.api.app import create_app
from gate.cli import app
from gate.domain.access import Role
from gate.settings import Settings
from tasks.bases import read_wanted
from tasks.cli import register
from tasks.placing import devices_of
from tasks.suites import load_suite

GOLDEN = Path(__file__).parents[1] / "golden" / "admission"
SETTINGS = {f"GATE_{name.upper()}" for name in Settings.model_fields}
CPU, GPU = "cpu", "gpu-default"
REVIEWED = json.loads((GOLDEN / "pod_without_a_model.json").read_text())["request"]

each_example = pytest.mark.parametrize("example", EXAMPLES)


def variables(manifests: list[Manifest], spec: Manifest) -> dict[str, Any]:
    """The variables of a pod by name, those from ConfigMaps too; what comes from a secret is shown as ``None``."""
    found: dict[str, Any] = {}
    for source in container(spec).get("envFrom", []):
        found |= of_kind(manifests, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return found | {each["name"]: each.get("value") for each in container(spec).get("env", [])}


def ours(example: str) -> Iterator[tuple[str, Manifest]]:
    """The pods that run our images."""
    for name, _, spec in pods(rendered(example)):
        if "valkey" not in name:
            yield name, spec


def queues_of(example: str) -> Sequence[str]:
    """Every queue that jobs are put on, by the settings that all processes are given."""
    (settings,) = [m for m in of_kind(rendered(example), "ConfigMap").values() if "GATE_STATE_DIR" in m["data"]]
    return Settings(gpu_memory_gb=settings["data"].get("GATE_GPU_MEMORY_GB", "")).gpu_sizes().all_queues


@each_example
def test_every_setting_that_a_pod_is_given_exists_and_is_accepted(
    example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, spec in ours(example):
        given = {k: v for k, v in variables(list(rendered(example)), spec).items() if k.startswith("GATE_")}
        assert set(given) <= SETTINGS, name
        with monkeypatch.context() as environment:
            for variable, value in given.items():
                environment.setenv(variable, value or "")
            Settings()


def test_the_schema_lets_each_setting_through_that_is_no_secret_and_that_the_chart_does_not_set_itself() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = schema["properties"]["settings"]["propertyNames"]["enum"]
    wanted = runpy.run_path(str(ROOT / "charts" / "generate_readme.py"))["free_settings"]()

    assert free == wanted, "run: python charts/generate_readme.py"
    assert "GATE_MAX_ATTEMPTS" in free
    assert not {"GATE_WEBHOOK_SECRETS", "GATE_API_TOKEN", "GATE_DATABASE_URL", "GATE_BROKER_URL"} & set(free)


@each_example
def test_every_pod_runs_a_command_that_exists(example: str, tmp_path: Path) -> None:
    register(app)
    group = typer.main.get_command(app)
    for _, spec in ours(example):
        words = list(container(spec).get("args", []))
        if "command" in container(spec):
            continue
        command: Any = group
        while isinstance(command, TyperGroup):
            command = command.commands[words.pop(0)]
        (tmp_path / "bases.yaml").touch()
        command.make_context(
            "basin-gate", [str(tmp_path / "bases.yaml") if w.endswith("bases.yaml") else w for w in words]
        )


@each_example
def test_every_http_probe_asks_a_route_that_answers(example: str, tmp_path: Path) -> None:
    client = a_stand(tmp_path).client
    for name, spec in ours(example):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container(spec).get(probe, {}).get("httpGet")
            if asked is None:
                continue
            assert client.get(asked["path"]).status_code == 200
            ports = {port["name"]: port["containerPort"] for port in container(spec)["ports"]}
            given = variables(list(rendered(example)), spec)
            bound = {given.get("GATE_METRICS_PORT"), (given.get("GATE_API_BIND") or "").rpartition(":")[2]}
            assert str(ports[asked["port"]]) in bound, name


@each_example
def test_each_queue_has_a_worker(example: str) -> None:
    workers = [container(spec) for _, spec in ours(example) if container(spec).get("args", [""])[0] == "worker"]
    served = {queue for worker in workers for queue in worker["args"][1].split(",")}

    assert served == set(queues_of(example))


def test_keda_asks_for_a_number_that_the_api_tells(tmp_path: Path) -> None:
    door = replace(a_stand(tmp_path).door, queues=queues_of("production"))
    client = TestClient(create_app(door, EVERYBODY))
    scaled = of_kind(rendered("production"), "ScaledObject")

    assert len(scaled) == 4
    for name, manifest in scaled.items():
        (trigger,) = manifest["spec"]["triggers"]
        url, location = trigger["metadata"]["url"], trigger["metadata"]["valueLocation"]
        assert url.startswith(f"http://gate-basin-gate-api.{NAMESPACE}.svc:8500/")
        queue, number = location.split(".")
        assert client.get("/" + url.split("/", 3)[3]).json()[queue][number] == 0
        assert container(component(rendered("production"), name.removeprefix("gate-basin-gate-")))["args"][1] == queue


def test_admission_reviews_are_sent_where_the_api_answers_them(tmp_path: Path) -> None:
    client = a_stand(tmp_path).client
    (configuration,) = of_kind(rendered("production"), "ValidatingWebhookConfiguration").values()
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": REVIEWED}
    for webhook in configuration["webhooks"]:
        answered = client.post(webhook["clientConfig"]["service"]["path"], json=review)
        assert (answered.status_code, answered.json()["response"]["allowed"]) == (200, True)


def test_a_certificate_made_by_the_chart_is_for_the_name_that_the_api_server_calls_and_signed_by_what_it_is_told() -> (
    None
):
    manifests = rendered("hpa")
    secret = of_kind(manifests, "Secret")["gate-basin-gate-admission-tls"]["data"]
    (configuration,) = of_kind(manifests, "ValidatingWebhookConfiguration").values()
    certificate = x509.load_pem_x509_certificate(b64decode(secret["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert f"gate-basin-gate-admission.{NAMESPACE}.svc" in names.get_values_for_type(x509.DNSName)
    for webhook in configuration["webhooks"]:
        authority = x509.load_pem_x509_certificate(b64decode(webhook["clientConfig"]["caBundle"]))
        certificate.verify_directly_issued_by(authority)


@each_example
def test_a_worker_is_given_more_time_than_it_takes_to_hand_its_job_back(example: str) -> None:
    manifests = list(rendered(example))
    for _, spec in ours(example):
        if container(spec).get("args", [""])[0] == "worker":
            grace = float(variables(manifests, spec)["GATE_STOP_GRACE_S"])
            assert spec["terminationGracePeriodSeconds"] >= grace + 60


@each_example
def test_all_workers_share_one_volume_because_one_reads_the_gradients_that_another_wrote(example: str) -> None:
    manifests = list(rendered(example))
    claims = set()
    for _, spec in ours(example):
        if container(spec).get("args", [""])[0] in ("worker", "base"):
            (mount,) = [m for m in container(spec)["volumeMounts"] if m["name"] == "state"]
            assert mount["mountPath"] == variables(manifests, spec)["GATE_STATE_DIR"]
            (volume,) = [v for v in spec["volumes"] if v["name"] == "state"]
            claims.add(volume["persistentVolumeClaim"]["claimName"])

    assert len(claims) == 1


@pytest.mark.parametrize("example", ["trial", "hpa"])
def test_what_mounts_a_volume_of_one_node_is_put_on_one_node(example: str) -> None:
    on_it = {}
    for name, metadata, spec in pods(rendered(example)):
        if any("persistentVolumeClaim" in volume for volume in spec.get("volumes", [])):
            (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["labelSelector"]["matchLabels"].items() <= metadata["labels"].items()
            on_it[name] = term["topologyKey"]

    assert set(on_it.values()) == {"kubernetes.io/hostname"}
    assert len(on_it) == {"trial": 4, "hpa": 2}[example]


def test_a_gpu_worker_is_given_its_gpu_and_one_without_measures_on_the_cpu() -> None:
    a10 = container(component(rendered("production"), "gpu-a10"))
    mig = component(rendered("production"), "gpu-mig")
    plain = container(component(rendered("trial"), GPU))
    pair = container(component(rendered("production"), "gpu-pair"))
    devices = [{c["name"]: c.get("value") for c in each["env"]}["GATE_DEVICE"] for each in (a10, pair)]

    assert [each["resources"]["limits"]["nvidia.com/gpu"] for each in (a10, pair)] == [1, 2]
    assert [devices_of(each) for each in devices] == [("cuda:0",), ("cuda:0", "cuda:1")]
    assert container(mig)["resources"]["limits"]["nvidia.com/mig-3g.40gb"] == 1
    assert mig["runtimeClassName"] == "nvidia"
    assert not any("nvidia" in name for name in plain["resources"]["limits"])
    assert {c["name"]: c.get("value") for c in plain["env"]}["GATE_DEVICE"] == "cpu"


@each_example
def test_only_cpu_workers_are_given_the_signing_key(example: str) -> None:
    holders = set()
    for name, spec in ours(example):
        for volume in spec["volumes"]:
            if any(item["key"] == "signing-key.pem" for item in volume.get("secret", {}).get("items", [])):
                holders.add(name.rpartition("-")[2])

    assert holders == {CPU}


def test_the_list_of_bases_that_the_job_is_given_is_one_that_the_command_reads(tmp_path: Path) -> None:
    text = of_kind(rendered("production"), "ConfigMap")["gate-basin-gate-bases"]["data"]["bases.yaml"]
    (tmp_path / "bases.yaml").write_text(text)
    (base,) = read_wanted(tmp_path / "bases.yaml")

    assert (base.name, base.source, base.suite) == (
        "support-base",
        "models:/support-base/1",
        "/etc/basin-gate/suites/support",
    )
    mounts = container(component(rendered("production"), "onboarding"))["volumeMounts"]
    assert base.suite in {mount["mountPath"] for mount in mounts}


def test_another_list_of_bases_is_another_job_and_the_same_is_the_same() -> None:
    (first,) = of_kind(rendered("existing"), "Job")
    (again,) = of_kind(rendered("existing", "--set", "api.replicas=3"), "Job")
    (other,) = of_kind(rendered("existing", "--set", "bases[0].references={another}"), "Job")

    assert first == again != other


@pytest.mark.parametrize(
    "change", ["policies.support\\.yaml=other", "suites.support.refunds\\.jsonl=other", "settings.GATE_MAX_ATTEMPTS=5"]
)
def test_pods_are_replaced_when_what_they_read_at_their_start_has_changed(change: str) -> None:
    before = {name: metadata.get("annotations") for name, metadata, _ in pods(rendered("production"))}
    after = {name: metadata.get("annotations") for name, metadata, _ in pods(rendered("production", "--set", change))}

    for name in before.keys() & after.keys():
        if not name.endswith("-test"):
            assert before[name] != after[name], name


def test_the_test_that_helm_runs_compiles() -> None:
    (pod,) = of_kind(rendered("production"), "Pod").values()
    script = container(pod["spec"])["args"][0]

    compile(script, "smoke", "exec")
    assert f"queues = {json.dumps(sorted(queues_of('production')), separators=(',', ':'))}" in script
    assert yaml.safe_load(yaml.safe_dump(script)) == script


def test_the_values_that_the_documentation_begins_with_are_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "install-on-kubernetes.md").read_text()
    (shown,) = re.findall(r"^```yaml values\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "values.yaml").write_text(shown)
    observe = ("--set-file", f"policies.observe\\.yaml={ROOT / 'policies' / 'observe.yaml'}")
    done = template("--values", tmp_path / "values.yaml", *observe)
    manifests = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]

    assert done.returncode == 0, done.stderr
    policy = of_kind(manifests, "ConfigMap")["gate-basin-gate-policies"]["data"]["observe.yaml"]
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "observe.yaml").write_text(policy)
    assert load_policies(tmp_path / "policies").policies
    for file, text in of_kind(manifests, "ConfigMap")["gate-basin-gate-suite-support"]["data"].items():
        (tmp_path / file).write_text(text)
    assert load_suite(tmp_path).name == "support"


def test_a_worker_that_is_started_for_work_ends_by_itself_and_is_given_nothing_to_serve() -> None:
    (scaled,) = of_kind(rendered("gateway"), "ScaledJob").values()
    (worker,) = scaled["spec"]["jobTargetRef"]["template"]["spec"]["containers"]

    assert worker["args"] == ["worker", "gpu", "--until-idle", "300"]
    assert not {"ports", "livenessProbe", "startupProbe"} & worker.keys()
    assert scaled["spec"]["triggers"][0]["metadata"]["valueLocation"] == "gpu.load"


def test_a_broker_behind_sentinel_is_asked_as_the_values_say() -> None:
    manifests = rendered("gateway")
    settings = of_kind(manifests, "ConfigMap")["gate-basin-gate-settings"]["data"]
    api = container(component(manifests, "api"))
    passwords = [each["valueFrom"] for each in api["env"] if each["name"] == "GATE_BROKER_SENTINEL_PASSWORD"]
    given = Settings(
        broker_url="sentinel://:secret@sentinel:26379",
        broker_sentinel_master=settings["GATE_BROKER_SENTINEL_MASTER"],
        broker_ca_file=settings["GATE_BROKER_CA_FILE"],
    )

    assert passwords == [{"secretKeyRef": {"name": "redis-sentinel", "key": "password"}}]
    assert sentinel_of(given) == Sentinel("gate", None, Path("/etc/basin-gate/redis-ca/ca.crt"))
    assert "/etc/basin-gate/redis-ca" in {mount["mountPath"] for mount in api["volumeMounts"]}


def test_traces_are_sent_where_the_values_say_and_the_network_lets_them_out() -> None:
    manifests = rendered("gateway")
    for name, spec in ours("gateway"):
        if "command" in container(spec):
            continue
        given = variables(list(manifests), spec)
        assert given["GATE_TRACES_ENDPOINT"] == "http://collector.monitoring.svc:4318/v1/traces", name
        assert given["OTEL_RESOURCE_ATTRIBUTES"] == f"k8s.namespace.name={NAMESPACE},service.instance.release=gate"
        assert "OTEL_EXPORTER_OTLP_HEADERS" in given, name
    egress = of_kind(manifests, "NetworkPolicy")["gate-basin-gate"]["spec"]["egress"]
    anywhere = {port["port"] for rule in egress if "to" not in rule for port in rule["ports"]}
    assert {4318, 26379} <= anywhere


def test_an_issuers_tokens_are_taken_by_whatever_serves_the_api_as_the_values_say() -> None:
    manifests = list(rendered("production"))
    asked = {
        name: {k.removeprefix("GATE_").lower(): v for k, v in variables(manifests, spec).items() if "OIDC" in k}
        for name, spec in ours("production")
        if container(spec).get("args") == ["api"]
    }

    assert set(asked) == {"gate-basin-gate-api", "gate-basin-gate-admission"}
    for given in map(Settings.model_validate, asked.values()):
        assert build_oidc(given) is not None
        assert (given.oidc_issuer, given.oidc_audience) == ("https://sso.example.org:8443/realms/ml", "basin-gate")
        assert (given.oidc_roles_claim, given.oidc_name_claim) == ("realm_access.roles", "sub")
        assert given.oidc_leeway_s == 30
        assert roles_of(given.oidc_roles) == {"ml-leads": Role.REVIEWER, "everybody": Role.READER}
    egress = of_kind(manifests, "NetworkPolicy")["gate-basin-gate"]["spec"]["egress"]
    assert 8443 in {port["port"] for rule in egress if "to" not in rule for port in rule["ports"]}


def test_a_gpu_class_serves_what_its_device_holds_and_smaller_ones_where_it_is_told_to() -> None:
    shared = {name: container(component(rendered("existing"), name))["args"] for name in ("gpu-default", "gpu-small")}
    own = {
        name: container(component(rendered("production"), name))["args"] for name in ("gpu-a10", "gpu-mig", "gpu-pair")
    }

    assert shared == {"gpu-default": ["worker", "gpu-80,gpu-24"], "gpu-small": ["worker", "gpu-24"]}
    assert own == {"gpu-a10": ["worker", "gpu-24"], "gpu-mig": ["worker", "gpu-40"], "gpu-pair": ["worker", "gpu-160"]}
    assert queues_of("production") == ("cpu", "gpu-24", "gpu-40", "gpu-160")
    assert queues_of("trial") == ("cpu", "gpu")


def test_only_the_dispatcher_is_given_the_addresses_of_channels_and_reads_them_where_they_are() -> None:
    for name, spec in ours("existing"):
        secrets = [volume for volume in spec["volumes"] if volume.get("secret", {}).get("secretName") == "all-secrets"]
        given = variables(list(rendered("existing")), spec).get("GATE_CHANNELS_FILE")
        if not name.endswith("-dispatcher"):
            assert (secrets, given) == ([], None), name
            continue
        [volume] = secrets
        [mount] = [m for m in container(spec)["volumeMounts"] if m["name"] == volume["name"]]
        [item] = volume["secret"]["items"]
        assert item["key"] == "basin-gate-channels.yaml"
        assert given == f"{mount['mountPath']}/{item['path']}"


def test_only_what_signs_verdicts_is_given_a_token_to_sign_with_and_reads_it_where_it_is() -> None:
    for name, spec in ours("gateway"):
        projected = [volume["projected"] for volume in spec["volumes"] if "projected" in volume]
        trust = [
            volume for volume in spec["volumes"] if volume.get("configMap", {}).get("name") == "sigstore-of-our-own"
        ]
        if not name.endswith("-cpu"):
            assert projected == trust == [], name
            continue
        given, mounts = variables(list(rendered("gateway")), spec), container(spec)["volumeMounts"]
        at = {mount["name"]: mount["mountPath"] for mount in mounts}
        [token] = [source["serviceAccountToken"] for each in projected for source in each["sources"]]
        assert token["audience"] == "sigstore"
        assert given["GATE_SIGSTORE_TOKEN_FILE"] == f"{at['sigstore-token']}/{token['path']}"
        assert given["GATE_SIGSTORE"] == f"{at['sigstore-trust']}/trust.json"


def test_without_an_instance_nothing_is_said_of_keyless_signatures() -> None:
    settings = of_kind(rendered("trial"), "ConfigMap")["gate-basin-gate-settings"]["data"]

    assert not [name for name in settings if "SIGSTORE" in name]


def test_without_an_address_nothing_is_said_of_traces() -> None:
    settings = of_kind(rendered("trial"), "ConfigMap")["gate-basin-gate-settings"]["data"]

    assert not [name for name in settings if "TRACES" in name or name.startswith("OTEL")]


def test_the_broker_that_celery_understands_is_the_one_that_was_meant() -> None:
    settings = of_kind(rendered("production"), "ConfigMap")["gate-basin-gate-settings"]["data"]
    connection = celery_app(settings["GATE_BROKER_URL"]).connection_for_write()

    assert (connection.hostname, connection.port) == ("redis.example.org", 6380)
    assert connection.ssl["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    assert connection.ssl["ssl_ca_certs"] == "/etc/basin-gate/redis-ca/ca.crt"
