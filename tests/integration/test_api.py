"""The HTTP application over a real ledger (SQLite) and a registry in memory."""

from urllib.parse import quote

import pytest
from api_stand import Stand, a_stand, judged
from builders import a_version
from deliveries import Sent, capture, delivery, signed
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider

from gate.adapters import tracing
from gate.adapters.metrics import Metrics
from gate.adapters.sql_ledger import SqlLedger
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.domain.checkpoint import Base
from gate.domain.errors import Unavailable
from gate.domain.verdict import Outcome


class AwayLedger(SqlLedger):
    """A ledger whose database cannot commit."""

    def accept_delivery(self, *_: object) -> bool:
        raise Unavailable("the database does not answer")

    def ping(self) -> None:
        raise Unavailable("the database does not answer")


@pytest.fixture
def stand(tmp_path):
    made = a_stand(tmp_path)
    yield made
    made.ledger.close()


def test_a_created_version_is_accepted_once_committed(stand):
    stand.register()
    reply = stand.tell("model_version.created", name="my-llm", version="3")
    (row,) = stand.ledger.evaluations()
    assert (reply.status_code, reply.json()) == (202, {"result": "accepted"})
    assert row.request.version == a_version()


def test_a_delivery_sent_five_times_asks_once(stand):
    stand.register()
    replies = [stand.tell("model_version.created", name="my-llm", version="3") for _ in range(5)]
    assert [r.json()["result"] for r in replies] == ["accepted"] + ["repeated"] * 4
    assert [r.status_code for r in replies] == [202] * 5
    assert len(stand.ledger.evaluations()) == 1


def test_the_same_version_told_under_another_delivery_id_asks_nothing_new(stand):
    stand.register()
    stand.tell("model_version.created", name="my-llm", version="3")
    assert stand.tell("model_version.created", id="d-2", name="my-llm", version="3").json()["result"] == "repeated"
    assert len(stand.ledger.evaluations()) == 1


@pytest.mark.parametrize("name", ["a b", "team/llm", "mödel ✓", "50% off?", "a'b\"c", "trailing "])
def test_a_model_of_any_name_can_be_told_evaluated_and_asked_for(stand, name):
    version = stand.register(name=name)
    assert stand.tell("model_version.created", name=name, version="3").status_code == 202
    assert stand.client.get("/v1/evaluations", params={"name": name}).json()["evaluations"][0]["name"] == name
    judged(stand, version)
    found = stand.client.get(f"/v1/verdicts/{quote(name, safe='')}/3")
    assert found.json()["verdict"]["subject"] == version.identity


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("00_test_webhook_default", 200),
        ("01_registered_model_created", 204),
        ("02_model_version_created", 202),
        ("03_model_version_tag_set", 204),
        ("05_alias_created", 202),
        ("06_alias_deleted", 202),
        ("15_delete_alias_nonexistent", 204),
        ("20_prompt_register.2", 204),
        ("24_prompt_tag", 204),
    ],
)
def test_each_kind_of_real_delivery_is_answered_as_it_must_be(stand, name, status):
    assert stand.send(capture(name)).status_code == status


def test_an_unsigned_delivery_is_401_and_nothing_is_kept(stand):
    stand.register()
    sent = delivery("model_version.created", {"name": "my-llm", "version": "3"}, at=stand.clock())
    reply = stand.client.post("/webhooks/mlflow", content=sent.body)
    assert reply.status_code == 401
    assert reply.headers["content-type"] == "application/problem+json"
    assert stand.ledger.evaluations() == []
    assert stand.counted("unverified") == 1


def test_a_mis_signed_or_stale_delivery_is_401(stand):
    data = {"name": "my-llm", "version": "3"}
    forged = delivery("model_version.created", data, at=stand.clock(), secret="guessed")
    stale = delivery("model_version.created", data, at=stand.clock() - 601)
    assert [stand.send(sent).status_code for sent in (forged, stale)] == [401, 401]


def test_a_truncated_delivery_is_401_and_a_signed_half_is_400(stand):
    sent = delivery("model_version.created", {"name": "my-llm", "version": "3"}, at=stand.clock())
    half = sent.body[: len(sent.body) // 2]
    assert stand.send(Sent(sent.headers, half)).status_code == 401
    assert stand.send(signed(half, at=stand.clock())).status_code == 400
    assert stand.counted("malformed") == 1


def test_an_oversized_delivery_is_413_whatever_length_it_announces(stand):
    big = signed(b"x" * 10_001, at=stand.clock())
    assert stand.send(big).status_code == 413
    chunks = (b"x" * 1000 for _ in range(1000))
    assert stand.client.post("/webhooks/mlflow", content=chunks, headers=big.headers).status_code == 413


def test_a_ledger_that_cannot_commit_is_503_so_that_mlflow_tries_again(tmp_path):
    stand = a_stand(tmp_path, AwayLedger)
    stand.register()
    reply = stand.tell("model_version.created", name="my-llm", version="3")
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert stand.client.get("/readyz").status_code == 503
    assert stand.client.get("/healthz").status_code == 200


def test_a_delivery_is_kept_while_mlflow_does_not_answer(stand):
    stand.registry.away = True
    assert stand.tell("model_version.created", name="my-llm", version="3").status_code == 202
    assert stand.tell("model_version.created", name="my-llm", version="3").json()["result"] == "repeated"


def test_a_version_deleted_meanwhile_asks_nothing(stand):
    assert stand.tell("model_version.created", name="my-llm", version="3").status_code == 202
    assert stand.ledger.evaluations() == []


def test_an_onboarded_base_and_a_prompt_are_not_evaluated(stand):
    base = stand.register(name="base", version="1")
    checkpoint = {"layout": "full", "files": []}
    stand.ledger.save_base(
        Base(name="b", digest="0" * 64, source=base.uri, suite="s", checkpoint=checkpoint), stand.clock()
    )
    stand.register(name="greeting", source="prompt-template")
    assert stand.tell("model_version.created", name="base", version="1").status_code == 202
    assert stand.tell("model_version.created", id="d-2", name="greeting", version="3").status_code == 204
    assert stand.ledger.evaluations() == []


@pytest.mark.parametrize("event", ["model_version_alias.created", "prompt_alias.created"])
@pytest.mark.parametrize("alias", ["champion", "Champion", "chämpion"])
def test_a_protected_alias_is_a_promotion_attempt_and_asks_for_the_evaluation(stand, event, alias):
    stand.register()
    assert stand.tell(event, name="my-llm", alias=alias, version="3").status_code == 202
    assert len(stand.ledger.evaluations()) == 1
    attempts = stand.door.metrics.registry.get_sample_value("gate_promotion_attempts_total", {"version": "unapproved"})
    assert attempts == 1


def test_an_attempt_on_a_version_evaluated_before_is_recorded_once_with_its_standing(stand):
    judged(stand, stand.register())
    for _ in range(3):
        stand.tell("model_version_alias.created", name="my-llm", alias="champion", version="3")
    sample = stand.door.metrics.registry.get_sample_value
    assert sample("gate_promotion_attempts_total", {"version": "approved"}) == 1
    assert sample("gate_promotion_attempts_total", {"version": "unapproved"}) == 0


def test_an_unprotected_alias_and_a_prompts_alias_are_not_ours(stand):
    stand.register()
    stand.register(name="greeting", source="dummy-source")
    assert stand.tell("model_version_alias.created", name="my-llm", alias="tmp", version="3").status_code == 204
    assert stand.tell("prompt_alias.created", name="greeting", alias="production", version="3").status_code == 204


def asked(stand: Stand, version: str = "3"):
    return stand.client.post("/v1/promotions", json={"name": "my-llm", "version": version})


def test_an_approved_version_may_be_promoted(stand):
    judged(stand, stand.register())
    assert (asked(stand).status_code, asked(stand).json()["allowed"]) == (200, True)


def test_a_version_that_is_blocked_running_unknown_or_expired_may_not_be_promoted(stand):
    version = stand.register()
    assert "not been evaluated" in asked(stand).json()["reason"]
    stand.tell("model_version.created", name="my-llm", version="3")
    running = asked(stand)
    assert (running.status_code, "not finished" in running.json()["reason"]) == (403, True)
    judged(stand, version, outcome=Outcome.BLOCKED)
    blocked = asked(stand).json()
    told = {word: blocked[word] for word in ("decision", "allowed", "reason", "outcome", "policy")}
    assert told == {
        "decision": "denied",
        "allowed": False,
        "reason": "Safety fell.",
        "outcome": "blocked",
        "policy": "default",
    }
    assert asked(stand, "99").status_code == 404


def test_an_approval_ends_with_its_validity(stand):
    judged(stand, stand.register())
    stand.clock.now += 2000
    reply = asked(stand)
    assert (reply.status_code, "expired" in reply.json()["reason"]) == (403, True)


def test_an_approval_is_not_inherited_by_a_version_made_again_under_the_same_number(stand):
    judged(stand, stand.register())
    stand.register(created_ms=1_795_000_000_001)
    assert asked(stand).status_code == 403


def test_a_registry_that_does_not_answer_allows_nothing(stand):
    judged(stand, stand.register())
    stand.registry.away = True
    assert asked(stand).status_code == 503


def test_a_verdict_is_found_by_its_key_and_missing_ones_say_how_far_they_are(stand):
    key = judged(stand, stand.register())
    found = stand.client.get(f"/v1/verdicts/{key}").json()
    assert found["evaluation"]["key"] == key
    assert found["attestations"] == {"summary": {"payload": ""}}
    stand.register(version="4")
    stand.tell("model_version.created", name="my-llm", version="4")
    missing = stand.client.get("/v1/verdicts/my-llm/4")
    assert (missing.status_code, "requested" in missing.json()["detail"]) == (404, True)


def test_evaluations_are_listed_newest_first_and_found_by_key(stand):
    for number in ("1", "2"):
        stand.register(version=number)
        stand.clock.now += 1
        stand.tell("model_version.created", id=number, name="my-llm", version=number)
    rows = stand.client.get("/v1/evaluations?limit=10").json()["evaluations"]
    assert [row["version"] for row in rows] == ["2", "1"]
    assert stand.client.get(f"/v1/evaluations/{rows[0]['key']}").json() == rows[0]
    assert stand.client.get("/v1/evaluations/nothing").status_code == 404
    assert stand.client.get("/v1/evaluations?limit=0").status_code == 422


def test_a_scraper_that_asks_for_openmetrics_is_led_to_the_trace_of_a_delivery_and_of_a_verdict(stand, monkeypatch):
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(tracing, "_provider", provider)
    version = stand.register()
    stand.tell("model_version.created", name="my-llm", version="3")
    judged(stand, version)
    (row,) = stand.ledger.evaluations()
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    reply = stand.client.get("/metrics", headers=asked)
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    led = {line.partition("{")[0] for line in reply.text.splitlines() if f'# {{trace_id="{row.trace_id}"}}' in line}
    assert led == {"gate_deliveries_total", "gate_time_to_verdict_seconds_bucket"}
    assert "trace_id" not in stand.client.get("/metrics").text


def test_metrics_tell_the_backlog_and_never_a_models_name(stand):
    stand.register(name="secret-project")
    stand.tell("model_version.created", name="secret-project", version="3")
    text = stand.client.get("/metrics").text
    assert 'gate_jobs{queue="cpu",state="queued"} 1.0' in text
    assert 'gate_deliveries_total{result="accepted"} 1.0' in text
    assert "secret-project" not in text


def test_a_broker_that_is_away_is_told_but_shuts_no_door(tmp_path):
    stand = a_stand(tmp_path)

    def away() -> None:
        raise Unavailable("the broker does not answer")

    door = Door(
        **{f: getattr(stand.door, f) for f in Door.__slots__ if f not in ("broker", "metrics")},
        broker=away,
        metrics=Metrics(),
    )
    reply = TestClient(create_app(door, Access(None))).get("/readyz")
    assert (reply.status_code, reply.json()["broker"]) == (200, "the broker does not answer")
