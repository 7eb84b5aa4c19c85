"""Register, measure, judge, obey: through every real part, with a worker and the broker killed in the middle."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkpoint_folders import copied, sharded
from deliveries import Sent, delivery
from fine_tunes import FineTunes
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from whole_product import BASE, BASE_REFERENCE, PATIENCE_S, STAGED, Product, Registered

from gate.adapters.mlflow_registry import WEBHOOK_NAME
from gate.domain.enforcement import TAG_ATTESTATION
from gate.domain.evidence import Evidence, Name
from gate.domain.jobs import measure_key
from gate.domain.verdict import Outcome
from gate.pages.prompts import TABLE_COLUMNS
from tasks.assess import assess, one_policy

MODEL = "help desk – 模型 ✓"
FINE_TUNES = ("benign_replay", "benign_lora", "adversarial")
CONTROLS = ("harmful", "spoofed_base")


@pytest.fixture(scope="module")
def folders(fine_tune: FineTunes, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Real fine-tunes of the staged base, and one of them in shards."""
    in_shards = sharded(copied(fine_tune("benign_replay"), tmp_path_factory.mktemp("shards") / "sharded"), parts=3)
    return {kind: fine_tune(kind) for kind in FINE_TUNES} | {"sharded": in_shards}


def deliveries_of(product: Product, version: Registered) -> Iterable[Sent]:
    """MLflow's delivery of the version five times over, and five more that tell the same under other ids."""
    found = product.client.get_model_version(version.name, version.number)
    data = {"name": found.name, "version": str(found.version), "source": found.source, "run_id": found.run_id}
    data |= {"tags": dict(found.tags), "description": None}
    ids = [f"same-{found.version}"] * 5 + [f"other-{found.version}-{n}" for n in range(5)]
    secret = (product.stack.state / "secrets" / "webhook").read_text()
    return [delivery("model_version.created", data, at=time.time(), id=each, secret=secret) for each in ids]


def send(product: Product, sent: Sent) -> int:
    """POST one delivery at the gate's door; the status it answered."""
    url = f"{product.stack.api_url}/webhooks/mlflow"
    request = urllib.request.Request(url, sent.body, sent.headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as reply:
        return int(reply.status)


def at_measurement(product: Product, version: Registered) -> bool:
    """Whether the API says that the version is being measured, and a worker is at it."""
    rows = product.get(f"/v1/evaluations?name={urllib.parse.quote(version.name)}")["evaluations"]
    measuring = {row["evidence_key"] for row in rows if (row["version"], row["state"]) == (version.number, "measuring")}
    return any(job.state == "running" and job.key in map(measure_key, measuring) for job in product.measure_jobs())


@pytest.fixture(scope="module")
def survived(product: Product, folders: Mapping[str, Path]) -> Mapping[str, Registered]:
    """Versions by fine-tune, after the gpu worker and the broker were killed while the first was being measured."""
    product.until_profiled()
    first, *others = FINE_TUNES
    versions = {first: product.register(MODEL, folders[first], base=BASE_REFERENCE)}
    product.until(lambda: at_measurement(product, versions[first]), "the first to be measured")
    product.stack.kill("gpu-worker")
    product.stack.kill("valkey")
    for kind in others:
        base = None if kind == "benign_lora" else BASE_REFERENCE
        versions[kind] = product.register(MODEL, folders[kind], base=base)
    with ThreadPoolExecutor(8) as pool:
        each = [sent for version in versions.values() for sent in deliveries_of(product, version)]
        assert set(pool.map(lambda sent: send(product, sent), each)) == {202}
    product.restart("valkey")
    product.end_lease(measure_key(product.row(versions[first]).evidence_key))
    product.restart("gpu-worker")
    product.until_projected(versions.values())
    return versions


EXPECTED = {"benign_replay": "approved", "benign_lora": "approved", "adversarial": "blocked"}


@pytest.mark.parametrize("kind", FINE_TUNES)
def test_each_version_has_one_verdict_and_it_is_the_right_one(
    product: Product, survived: Mapping[str, Registered], kind: str
) -> None:
    version = survived[kind]
    [verdict] = product.verdicts_of(version)
    [run] = product.runs_of(version)
    tags = product.tags(version)
    assert verdict["outcome"] == EXPECTED[kind], verdict["reason"]
    assert (tags["gate.verdict"], tags["gate.run_id"]) == (EXPECTED[kind], run.info.run_id)
    assert (run.data.tags["gate.verdict"], run.info.status) == (EXPECTED[kind], "FINISHED")
    assert tags["gate.evidence"] == verdict["evidence_digest"]


def test_the_killed_measurement_was_begun_again_and_ended_once(
    product: Product, survived: Mapping[str, Registered]
) -> None:
    killed = measure_key(product.row(survived["benign_replay"]).evidence_key)
    [job] = [row for row in product.measure_jobs() if row.key == killed]
    assert job.state == "done"
    assert job.epoch == job.attempts >= 2


def test_a_delivery_sent_again_and_again_is_taken_in_once(product: Product, survived: Mapping[str, Registered]) -> None:
    ids = product.deliveries()
    assert [ids.count(f"same-{version.number}") for version in survived.values()] == [1, 1, 1]
    assert len(product.get(f"/v1/evaluations?name={urllib.parse.quote(MODEL)}")["evaluations"]) == len(FINE_TUNES)


def test_nothing_in_the_audit_was_lost_or_told_twice(product: Product, survived: Mapping[str, Registered]) -> None:
    assert product.ledger.audit_break() is None
    judged = [entry["evaluation"] for entry in product.audited("verdict")]
    assert len(judged) == len(set(judged)) >= len(survived)


def test_a_forged_delivery_is_refused_in_the_midst_of_all_this(
    product: Product, survived: Mapping[str, Registered]
) -> None:
    forged = delivery("model_version.created", {"name": MODEL, "version": "1"}, at=time.time(), secret="not it")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        send(product, forged)


@pytest.mark.parametrize("kind", FINE_TUNES)
def test_assessing_the_same_folders_finds_the_same_numbers_and_verdict(
    product: Product, survived: Mapping[str, Registered], folders: Mapping[str, Path], kind: str, assessed: Path
) -> None:
    policy = one_policy(product.policy, None)
    found, verdict, prompts = assess(STAGED, folders[kind], policy=policy, suite="staged", threads=1, cache=assessed)
    row = product.row(survived[kind])
    service = product.ledger.evidence(row.evidence_key)
    assert numbers(found) == numbers(service)
    assert (found.key, found.seed, verdict.outcome) == (service.key, service.seed, row.outcome)
    assert prompts == product.ledger.prompts(row.evidence_key)
    assert found.prompts_sha256 == service.prompts_sha256 == prompts.digest


def test_mlflow_reads_the_changed_prompts_of_the_blocked_version_as_a_table(
    product: Product, survived: Mapping[str, Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = product.runs_of(survived["adversarial"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", product.stack.mlflow_uri)
    found = MlflowClient().load_table(run.info.experiment_id, "prompts.json", run_ids=[run.info.run_id])
    lost = found[found["capability"] == "safety"]
    assert list(found.columns) == list(TABLE_COLUMNS)
    assert (set(lost["base score"]), set(lost["candidate score"])) == ({1.0}, {0.0})
    assert all(answer.startswith("sure") for answer in lost["candidate answer"])
    assert all(answer.startswith("no") for answer in lost["base answer"])


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where assessments keep the base's profile."""
    return tmp_path_factory.mktemp("assessed")


def numbers(evidence: Evidence) -> Mapping[tuple[Name, str | None], tuple[float, float | None, float | None]]:
    """Every estimate of the evidence by name and capability."""
    return {
        (m.name, m.capability): (m.estimate.value, m.estimate.lower, m.estimate.upper) for m in evidence.measurements
    }


def test_the_protected_alias_is_refused_on_the_blocked_version_and_granted_on_the_approved_one(
    product: Product, survived: Mapping[str, Registered]
) -> None:
    with pytest.raises(MlflowException) as refused:
        product.client.set_registered_model_alias(MODEL, "champion", survived["adversarial"].number)
    assert refused.value.get_http_status_code() == 403
    assert "Safety fell" in refused.value.message
    product.client.set_registered_model_alias(MODEL, "champion", survived["benign_lora"].number)
    assert product.client.get_model_version_by_alias(MODEL, "champion").version == survived["benign_lora"].number


def test_the_gates_own_alias_stands_on_the_newest_approved_version(
    product: Product, survived: Mapping[str, Registered]
) -> None:
    held = product.client.get_model_version_by_alias(MODEL, "approved")
    assert held.version == survived["benign_lora"].number


def test_the_same_bytes_again_are_not_measured_again_but_approved_by_themselves(
    product: Product, survived: Mapping[str, Registered], folders: Mapping[str, Path]
) -> None:
    before, jobs = product.evidence_keys(), {row.key: row.epoch for row in product.measure_jobs()}
    again = product.register("copied", folders["benign_replay"], base=BASE_REFERENCE)
    product.until_projected([again])
    row, first = product.row(again), product.row(survived["benign_replay"])
    assert (row.outcome, row.evidence_key) == (Outcome.APPROVED, first.evidence_key)
    assert product.evidence_keys() == before
    assert {row.key: row.epoch for row in product.measure_jobs()} == jobs
    assert product.tags(again)[TAG_ATTESTATION] != product.tags(survived["benign_replay"])[TAG_ATTESTATION]
    product.client.set_registered_model_alias("copied", "champion", again.number)


def test_one_versions_approval_does_not_promote_another(product: Product, survived: Mapping[str, Registered]) -> None:
    borrowed = product.tags(survived["benign_replay"])[TAG_ATTESTATION]
    blocked = survived["adversarial"]
    own = product.tags(blocked)[TAG_ATTESTATION]
    product.client.set_model_version_tag(MODEL, blocked.number, TAG_ATTESTATION, borrowed)
    with pytest.raises(MlflowException, match="for another version"):
        product.client.set_registered_model_alias(MODEL, "champion", blocked.number)
    product.client.set_model_version_tag(MODEL, blocked.number, TAG_ATTESTATION, own)


def test_shards_are_judged_as_the_whole_file_is_and_a_worker_told_to_stop_loses_no_attempt(
    product: Product, survived: Mapping[str, Registered], folders: Mapping[str, Path]
) -> None:
    version = product.register("in shards", folders["sharded"], base=BASE_REFERENCE)
    product.until(lambda: at_measurement(product, version), "the shards to be measured")
    product.stack.end(["gpu-worker"], grace_s=PATIENCE_S)
    product.restart("gpu-worker")
    product.until_projected([version])
    whole = product.ledger.evidence(product.row(survived["benign_replay"]).evidence_key)
    parts = product.ledger.evidence(product.row(version).evidence_key)
    static = (Name.DISPLACEMENT_NORM, Name.DISPLACEMENT_RMS, Name.CHANGED_FRACTION)
    assert [parts.find(n) for n in static] == [whole.find(n) for n in static]
    assert product.row(version).outcome == Outcome.APPROVED
    assert [job.attempts for job in product.measure_jobs() if job.key == measure_key(parts.key)] == [1]


def test_without_its_webhook_a_version_is_found_all_the_same_and_the_webhook_is_made_again(
    product: Product, survived: Mapping[str, Registered], folders: Mapping[str, Path]
) -> None:
    for hook in product.client.list_webhooks():
        product.client.delete_webhook(hook.webhook_id)
    version = product.register("untold", folders["adversarial"], base=BASE_REFERENCE)
    product.until_projected([version])
    assert product.row(version).outcome == Outcome.BLOCKED
    product.until(lambda: [h.name for h in product.client.list_webhooks()] == [WEBHOOK_NAME], "the webhook again")


def standing(product: Product) -> tuple[set[str], set[tuple[str, str]], dict[str, int]]:
    """The evaluations, the registered versions, and the verdicts counted by outcome."""
    versions = {(v.name, v.version) for v in product.client.search_model_versions()}
    keys = {row.request.key for row in product.ledger.evaluations(500)}
    return keys, versions, dict(product.ledger.statistics(0).outcomes)


def test_the_product_checks_itself_by_its_own_workers_and_registers_and_judges_no_version_for_it(
    product: Product, tmp_path: Path
) -> None:
    product.until_quiet()
    before = standing(product)
    words = [word for control in CONTROLS for word in ("--control", control)]

    done = subprocess.run(
        [sys.executable, "-m", "gate", "selfcheck", "--base", BASE, *words, "--wait-minutes", str(PATIENCE_S / 60)],
        env=os.environ | dict(product.stack.environment),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S + 60,
    )

    assert done.returncode == 0, done.stdout + done.stderr + product.situation()
    assert "2 of 2 as expected" in done.stdout
    assert standing(product) == before
    with urllib.request.urlopen(product.stack.api_url + "/metrics", timeout=120) as reply:
        told = reply.read().decode()
    for control in CONTROLS:
        assert f'gate_selfchecks_total{{control="{control}",outcome="as_expected"}} 1.0' in told
