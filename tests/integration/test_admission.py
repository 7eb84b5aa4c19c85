"""Kubernetes' admission reviews through the HTTP application, and over HTTPS to the API as it is started."""

import datetime
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from api_stand import Stand, a_stand, judged
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from held_ports import free_port

from gate.domain.errors import Unavailable
from gate.domain.verdict import Outcome

GOLDEN = Path(__file__).parents[1] / "golden" / "admission"
WITH_A_MODEL = sorted(
    f.stem for f in GOLDEN.glob("*.json") if f.stem not in ("pod_without_a_model", "statefulset_deleted")
)


@pytest.fixture
def stand(tmp_path):
    made = a_stand(tmp_path)
    yield made
    made.ledger.close()


def review(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def asked(stand: Stand, document: str | dict[str, Any], mode: str = "") -> dict[str, Any]:
    given = review(document) if isinstance(document, str) else document
    reply = stand.client.post(f"/admission{mode}", json=given)
    answer = reply.json()
    assert (reply.status_code, answer["kind"], answer["apiVersion"]) == (200, "AdmissionReview", "admission.k8s.io/v1")
    assert answer["response"]["uid"] == given["request"]["uid"]
    return answer["response"]


def promoted(stand: Stand, **changes: object) -> None:
    """Versions 3 and 4 with a verdict, version 3 under two aliases."""
    for number in ("3", "4"):
        judged(stand, stand.register(version=number), **changes)
    stand.registry.pointers |= {("my-llm", "champion"): "3", ("my-llm", "challenger"): "3"}


@pytest.mark.parametrize("name", WITH_A_MODEL)
def test_whatever_kind_it_is_an_approved_model_is_admitted(stand, name):
    promoted(stand)
    assert asked(stand, name) == {"uid": review(name)["request"]["uid"], "allowed": True}


@pytest.mark.parametrize("name", [name for name in WITH_A_MODEL if name != "statefulset_scaled"])
def test_whatever_kind_it_is_a_blocked_model_is_refused_with_the_reason(stand, name):
    promoted(stand, outcome=Outcome.BLOCKED, reason="Safety fell.")
    response = asked(stand, name)
    assert (response["allowed"], response["status"]["code"]) == (False, 403)
    assert response["status"]["message"].startswith("[basin-gate] models:/my-llm")
    assert "is not approved: Safety fell." in response["status"]["message"]


def test_a_resource_without_a_model_is_no_concern_of_the_gate(stand):
    stand.registry.away = True
    assert asked(stand, "pod_without_a_model")["allowed"]
    assert stand.door.metrics.registry.get_sample_value("gate_admissions_total", {"answer": "unconcerned"}) == 1


def test_what_runs_already_may_be_scaled_and_deleted_whatever_became_of_its_model(stand):
    assert asked(stand, "statefulset_scaled")["allowed"]
    assert asked(stand, "statefulset_deleted")["allowed"]


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("models:/my-llm/9", "cannot be looked up: no version 9"),
        ("models:/my-llm@nobody", "cannot be looked up: expected an alias 'nobody'"),
        ("models:/my-llm/latest", "expected models:/NAME/VERSION"),
        ("my-llm", "expected models:/NAME/VERSION"),
        ("models:/my-llm/5", "is not approved: It has not been evaluated under the policy in force."),
    ],
)
def test_a_model_nobody_knows_or_judged_is_refused_and_warned_of(stand, reference, told):
    promoted(stand)
    stand.register(version="5")
    document = review("deployment_annotation")
    document["request"]["object"]["spec"]["template"]["metadata"]["annotations"] = {"basin-gate.dev/model": reference}
    assert told in asked(stand, document)["status"]["message"]
    warned = asked(stand, document, "/warn")
    assert (warned["allowed"], told in warned["warnings"][0], "status" in warned) == (True, True, False)


def test_a_registry_or_ledger_that_is_away_refuses_and_only_warns_where_that_was_chosen(stand, monkeypatch):
    promoted(stand)
    stand.registry.away = True
    assert "the registry is away" in asked(stand, "pod_vllm_argument")["status"]["message"]
    assert "the registry is away" in asked(stand, "pod_vllm_argument", "/warn")["warnings"][0]
    stand.registry.away = False

    def away(*_: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(type(stand.ledger), "evaluation_of", away)
    assert "the database does not answer" in asked(stand, "pod_vllm_argument")["status"]["message"]


def test_an_expired_approval_admits_nothing_new(stand):
    promoted(stand)
    stand.clock.now += 2000
    assert "expired" in asked(stand, "pod_vllm_argument")["status"]["message"]


def test_one_unapproved_model_among_several_is_enough_to_refuse(stand):
    promoted(stand)
    stand.register(version="5")
    stand.registry.pointers["my-llm", "challenger"] = "5"
    message = asked(stand, "seldondeployment_graph")["status"]["message"]
    assert "models:/my-llm@challenger is not approved" in message
    assert "models:/my-llm/3" not in message


def test_warnings_are_as_short_as_kubernetes_wants_them(stand):
    promoted(stand, outcome=Outcome.BLOCKED, reason="Safety fell. " * 60)
    assert [len(w) for w in asked(stand, "pod_vllm_argument", "/warn")["warnings"]] == [250]


@pytest.mark.parametrize("change", [{"apiVersion": "admission.k8s.io/v1beta1"}, {"request": None}, {"kind": "Pod"}])
def test_what_is_no_admission_review_is_no_answer(stand, change):
    assert stand.client.post("/admission", json=review("pod_vllm_argument") | change).status_code == 422


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 signed by itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "basin-gate")])
    alternatives = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    certificate, private = folder / "tls.crt", folder / "tls.key"
    made = builder.add_extension(alternatives, critical=False).sign(key, hashes.SHA256())
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def test_the_api_answers_reviews_over_https_as_kubernetes_demands(tmp_path):
    certificate, private = a_certificate(tmp_path)
    url = f"https://localhost:{free_port()}"
    environment = {
        "GATE_STATE_DIR": str(tmp_path),
        "GATE_PUBLIC_URL": url,
        "GATE_TLS_CERTIFICATE_FILE": str(certificate),
        "GATE_TLS_KEY_FILE": str(private),
        "GATE_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "GATE_WEBHOOK_SECRETS": "secret",
    }
    process = subprocess.Popen([sys.executable, "-m", "gate", "api"], env=os.environ | environment)
    trusting = ssl.create_default_context(cafile=str(certificate))
    body = (GOLDEN / "pod_vllm_argument.json").read_bytes()
    sent = urllib.request.Request(f"{url}/admission", body, {"Content-Type": "application/json"})
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(sent, timeout=60, context=trusting) as reply:
                    response = json.load(reply)["response"]
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert (response["allowed"], "cannot be looked up" in response["status"]["message"]) == (False, True)
