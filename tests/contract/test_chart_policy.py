"""What no rendering of the chart may do, and which values it must refuse."""

import re

import pytest
from rendered_chart import CHART, EXAMPLES, NAMESPACE, component, container, helm, of_kind, pods, rendered, template

each_example = pytest.mark.parametrize("example", EXAMPLES)


@each_example
def test_no_container_has_more_rights_than_the_restricted_standard_allows(example: str) -> None:
    for name, _, spec in pods(rendered(example)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10_000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container(spec)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name


@each_example
def test_no_pod_has_a_token_of_kubernetes_or_variables_of_its_services(example: str) -> None:
    manifests = rendered(example)

    for name, _, spec in pods(manifests):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
    assert {m["kind"] for m in manifests}.isdisjoint({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})


@each_example
def test_every_container_says_what_it_needs_and_at_most_takes(example: str) -> None:
    for name, _, spec in pods(rendered(example)):
        resources = container(spec)["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"], name


@each_example
def test_everything_that_runs_on_is_watched(example: str) -> None:
    for name in of_kind(rendered(example), "Deployment"):
        spec = next(spec for pod, _, spec in pods(rendered(example)) if pod == name)
        assert "livenessProbe" in container(spec), name
        assert {"startupProbe", "readinessProbe"} & container(spec).keys(), name


@each_example
def test_every_image_is_pinned(example: str) -> None:
    for name, _, spec in pods(rendered(example)):
        repository, _, tag = container(spec)["image"].rpartition("@" if "@" in container(spec)["image"] else ":")
        assert repository, name
        assert tag not in ("", "latest"), name


@each_example
def test_no_secret_stands_in_a_manifest(example: str) -> None:
    for manifest in rendered(example):
        assert manifest["kind"] != "Secret" or manifest["type"] == "kubernetes.io/tls"
    for name, _, spec in pods(rendered(example)):
        for variable in container(spec).get("env", []):
            if any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "SECRETS")):
                assert "valueFrom" in variable or variable["name"].endswith("_FILE"), name


@each_example
def test_every_manifest_is_labelled_as_the_releases(example: str) -> None:
    for manifest in rendered(example):
        if manifest["metadata"]["name"] != "more":
            assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "gate"


def test_the_network_lets_in_only_who_was_named() -> None:
    policy = of_kind(rendered("production"), "NetworkPolicy")["gate-basin-gate"]["spec"]
    (clients,) = policy["ingress"]
    named = {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in clients["from"]
        if "namespaceSelector" in peer
    }

    assert named == {"mlflow", "ingress-nginx", "keda", "monitoring"}
    assert all(rule.get("from") for rule in policy["ingress"])
    assert all(rule.get("to") or rule.get("ports") for rule in policy["egress"])


def test_the_api_is_never_fewer_during_a_roll_out_and_gpus_are_never_more() -> None:
    deployments = of_kind(rendered("production"), "Deployment")

    for name in ("gate-basin-gate-api", "gate-basin-gate-admission"):
        assert deployments[name]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    for name in ("gate-basin-gate-gpu-a10", "gate-basin-gate-gpu-mig"):
        assert deployments[name]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_admission_never_asks_about_the_namespaces_that_it_needs_to_start() -> None:
    (configuration,) = of_kind(rendered("production"), "ValidatingWebhookConfiguration").values()
    enforcing = configuration["webhooks"][0]
    excluded = enforcing["namespaceSelector"]["matchExpressions"][1]["values"]

    assert set(excluded) == {"kube-system", "basin-gate", "mlflow", "databases"}
    assert enforcing["failurePolicy"] == "Fail"


def test_redis_is_believed_only_with_the_named_authority() -> None:
    settings = of_kind(rendered("production"), "ConfigMap")["gate-basin-gate-settings"]["data"]
    mounts = container(component(rendered("production"), "api"))["volumeMounts"]

    assert settings["GATE_BROKER_URL"].endswith("?ssl_cert_reqs=required&ssl_ca_certs=/etc/basin-gate/redis-ca/ca.crt")
    assert "/etc/basin-gate/redis-ca" in {mount["mountPath"] for mount in mounts}


BASE = (
    "--set",
    "mlflow.url=http://mlflow:5000,keys.existingSecret=k,access.existingSecret=a,database.url=postgresql+psycopg://gate@db/gate",
)


def test_the_values_that_are_refused_below_are_accepted_without_their_fault() -> None:
    assert template(*BASE).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mlflow.url=", "mlflow.url: expected the address"),
        ("keys.existingSecret=", "keys.existingSecret: expected a secret"),
        ("access.existingSecret=", "access.existingSecret: expected a secret"),
        ("access.open=true", "expected existingSecret or open, found both"),
        ("access.oidc.issuer=https://sso.example.org", "access.oidc.audience: expected the audience"),
        ("access.oidc.audience=basin-gate", "access.oidc.issuer: expected an address"),
        (
            "access.existingSecret=,access.open=true,access.oidc.issuer=https://i,access.oidc.audience=a",
            "expected oidc.issuer or open, found both",
        ),
        ("database.existingSecret=d", "expected url or existingSecret, found both"),
        ("database.url=", "expected PostgreSQL"),
        ("database.url=,api.replicas=1", "dispatcher.replicas=2"),
        (
            "database.url=,api.replicas=1,dispatcher.replicas=1,workers.cpu.autoscaling.kind=hpa",
            "1 GPU class\\(es\\), autoscaling",
        ),
        ("database.url=,api.replicas=1,dispatcher.replicas=1,workers.gpu.default.replicas=2", "expected PostgreSQL"),
        ("database.url=,api.replicas=1,dispatcher.replicas=1,admission.enabled=true", "expected PostgreSQL"),
        ("redis.url=redis://r", "found redis.bundled.enabled and redis.url"),
        ("redis.bundled.enabled=false", "expected exactly one .* found none"),
        ("redis.bundled.enabled=false,redis.url=redis://r,redis.tls.caSecret=c", "begin with rediss://"),
        ("redis.bundled.enabled=false,redis.url=sentinel://s:26379", "expected the name of the master"),
        ("redis.sentinel.master=gate", "with a sentinel:// address, found neither"),
        ("redis.bundled.enabled=false,redis.url=sentinel://:secret@s:26379", "does not match pattern"),
        ("api.httpRoute.enabled=true", "expected hostnames and parentRefs, found one missing"),
        ("tracing.existingSecret=t", "expected an address with tracing.existingSecret"),
        ("tracing.endpoint=collector:4317", "does not match pattern"),
        ("sigstore.instance=staging,sigstore.trustConfigMap=own", "sigstore: expected instance or trustConfigMap"),
        ("workers.gpu.default=null", "expected at least one class"),
        (
            "workers.gpu.default.memoryGB=80,workers.gpu.small.resources.requests.cpu=1,workers.gpu.small.resources.limits.memory=1Gi",
            "expected memoryGB for every class or for none, found it for 1 of 2",
        ),
        ("workers.gpu.default.takesSmaller=true", "takesSmaller: expected memoryGB"),
        (
            "workers.gpu.default.takesSmaller=true,workers.gpu.default.memoryGB=80,workers.gpu.default.autoscaling.kind=keda",
            "KEDA would take a pod away",
        ),
        ("api.ingress.enabled=true", "expected a host name"),
        ("admission.enabled=true,admission.certificate.kind=existing", "expected existingSecret and caBundle"),
        # What the schema refuses:
        ("api.replica=3", "additional properties 'replica' not allowed"),
        ("access.oidc.issuer=http://sso.example.org", "does not match pattern"),
        ("access.oidc.roles.ml-leads=superuser", "value must be one of"),
        ("notifications.url=slack://x", "additional properties 'url' not allowed"),
        ("settings.GATE_DEVISE=cpu", "GATE_DEVISE"),
        ("settings.GATE_DATABASE_URL=sqlite:///x", "GATE_DATABASE_URL"),
        ("database.url=postgresql+psycopg://gate:secret@db/gate", "does not match pattern"),
        ("database.url=mysql://db/gate", "does not match pattern"),
        ("api.autoscaling.kind=keda", "value must be one of"),
        ("state.accessModes={ReadOnlyMany}", "value must be one of"),
        ("workers.gpu.default.gpu.count=17", "maximum"),
        ("workers.gpu.Big.resources.limits.memory=1Gi", "Big"),
        ("suites.s.items\\.jsonl=x", "suite.yaml"),
    ],
)
def test_values_that_cannot_work_are_refused_with_what_to_do(change: str, message: str) -> None:
    refused = template(*BASE, "--set", change)

    assert refused.returncode != 0
    assert re.search(message, refused.stderr), refused.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("workers.cpu.autoscaling.kind=keda", "workers cpu: autoscaling.kind keda: expected KEDA"),
        ("workers.gpu.default.autoscaling.kind=keda", "workers default: autoscaling.kind keda: expected KEDA"),
        ("workers.gpu.default.autoscaling.kind=kedaJob", "autoscaling.kind kedaJob: expected KEDA"),
        (
            "api.httpRoute.enabled=true,api.httpRoute.hostnames={h},api.httpRoute.parentRefs[0].name=g",
            "expected the Gateway API in the cluster",
        ),
        ("admission.enabled=true", "expected cert-manager in the cluster"),
    ],
)
def test_what_needs_an_operator_is_refused_where_there_is_none(change: str, message: str) -> None:
    refused = template(*BASE, "--set", change, installed=())

    assert refused.returncode != 0
    assert message in refused.stderr


@pytest.mark.parametrize("example", ["trial", "hpa"])
def test_after_installing_people_are_told_what_is_missing_on_mlflows_side(example: str) -> None:
    values = CHART / "ci" / f"{example}-values.yaml"
    done = helm("install", "gate", CHART, "--namespace", NAMESPACE, "--values", values, "--dry-run=client")
    _, _, told = done.stdout.partition("NOTES:")

    for needed in ("--registry-store-uri gate+", "GATE_TRUSTED_KEYS_FILE", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"):
        assert needed in told, done.stderr
    assert ("This is a trial" in told) == (example == "trial")
