"""Deliveries: what is believed, what is refused, and what each says."""

import base64
import hmac

import pytest
from deliveries import CAPTURE_SECRET, capture, captures, delivery, signed

from gate.domain.errors import InvalidInput, Unverified
from gate.domain.events import (
    FUTURE_S,
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Delivery,
    EventKind,
    RegistryEvent,
    parse_event,
    verify_delivery,
)

NOW = 1_795_376_900.0


def verified(headers: dict[str, str], body: bytes, *, now: float = NOW, secrets: tuple[str, ...] = (CAPTURE_SECRET,)):
    return verify_delivery(headers, body, secrets, now, 600)


def said(event: str, **data: object) -> RegistryEvent:
    sent = delivery(event, data, at=NOW)
    return parse_event(verified(sent.headers, sent.body))


@pytest.mark.parametrize("name", captures())
def test_every_delivery_mlflow_really_sent_verifies_and_parses(name):
    sent = capture(name)
    event = parse_event(verified(sent.headers, sent.body))
    assert event.kind is not EventKind.UNKNOWN


def test_a_created_version_is_told_with_its_name_and_number():
    sent = capture("02_model_version_created")
    event = parse_event(verified(sent.headers, sent.body))
    assert (event.kind, event.name, event.version) == (EventKind.VERSION_CREATED, "my-llm", "1")


@pytest.mark.parametrize("name", ["00_test_webhook_alias", "00_test_webhook_default"])
def test_mlflows_test_button_is_a_ping(name):
    sent = capture(name)
    assert parse_event(verified(sent.headers, sent.body)).kind is EventKind.PING


@pytest.mark.parametrize("name", ["20_prompt_register.1", "20_prompt_register.2", "24_prompt_tag"])
def test_a_prompts_creation_and_tags_are_not_a_models(name):
    sent = capture(name)
    assert parse_event(verified(sent.headers, sent.body)).kind is EventKind.PROMPT


def test_a_prompts_alias_is_told_as_an_alias_since_a_model_can_be_dressed_up_as_a_prompt():
    sent = capture("21_prompt_alias")
    event = parse_event(verified(sent.headers, sent.body))
    assert (event.kind, event.alias, event.as_prompt) == (EventKind.ALIAS_SET, "production", True)


def test_either_secret_is_accepted_during_rotation():
    sent = delivery("registered_model.created", {"name": "m"}, at=NOW, secret="old")
    assert verified(sent.headers, sent.body, secrets=("new", "old")).id == "d-1"


def test_header_names_are_matched_whatever_their_case():
    sent = delivery("registered_model.created", {"name": "m"}, at=NOW)
    assert verified({k.upper(): v for k, v in sent.headers.items()}, sent.body).sent_at == int(NOW)


@pytest.mark.parametrize("header", ["x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"])
def test_a_delivery_without_a_signature_header_is_unverified(header):
    sent = delivery("registered_model.created", {"name": "m"}, at=NOW)
    headers = {k: v for k, v in sent.headers.items() if k != header}
    with pytest.raises(Unverified, match=header):
        verified(headers, sent.body)


@pytest.mark.parametrize(
    "signature", ["v1,", "v1,AAAA", "v2,ys7OyWvKQKqibXIpNYdqaSCBcKFp00TbKoji1zTbJ5U=", "é✓", "\udcff", "x" * 5000]
)
def test_a_wrong_signature_is_unverified_whatever_its_shape(signature):
    sent = capture("02_model_version_created")
    with pytest.raises(Unverified):
        verified({**sent.headers, "X-MLflow-Signature": signature}, sent.body)


def test_a_changed_body_id_or_timestamp_breaks_the_signature():
    sent = capture("02_model_version_created")
    for headers, body in (
        (sent.headers, sent.body + b" "),
        (sent.headers, sent.body[:-20]),
        ({**sent.headers, "X-MLflow-Delivery-Id": "other"}, sent.body),
        ({**sent.headers, "X-MLflow-Timestamp": str(sent.at + 1)}, sent.body),
    ):
        with pytest.raises(Unverified):
            verified(headers, body)


def test_without_any_secret_nothing_verifies():
    sent = delivery("registered_model.created", {"name": "m"}, at=NOW, secret="")
    with pytest.raises(Unverified):
        verified(sent.headers, sent.body, secrets=())


@pytest.mark.parametrize(
    ("age", "believed"), [(0, True), (600, True), (601, False), (-FUTURE_S, True), (-FUTURE_S - 1, False)]
)
def test_a_timestamp_is_believed_only_inside_the_window(age, believed):
    sent = delivery("registered_model.created", {"name": "m"}, at=NOW - age)
    if believed:
        assert verified(sent.headers, sent.body).sent_at == int(NOW - age)
        return
    with pytest.raises(Unverified, match="clocks"):
        verified(sent.headers, sent.body)


@pytest.mark.parametrize("stamp", ["soon", "-1", "1e9", "٣", "9" * 40])
def test_a_signed_timestamp_that_is_no_number_is_unverified(stamp):
    mac = hmac.new(CAPTURE_SECRET.encode(), f"d-1.{stamp}.{{}}".encode(), "sha256").digest()
    headers = {ID_HEADER: "d-1", TIMESTAMP_HEADER: stamp, SIGNATURE_HEADER: "v1," + base64.b64encode(mac).decode()}
    with pytest.raises(Unverified, match="whole Unix seconds"):
        verified(headers, b"{}")


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b'{"entity": "model_version"', b"[]", b"null", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000],
)
def test_a_signed_body_that_is_no_envelope_is_invalid_input(body):
    sent = signed(body, at=NOW)
    with pytest.raises(InvalidInput, match="expected"):
        parse_event(verified(sent.headers, sent.body))


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("model_version.created", {}),
        ("model_version.created", {"name": "m"}),
        ("model_version.created", {"name": "", "version": "1"}),
        ("model_version.created", {"name": "m", "version": 1}),
        ("model_version_alias.created", {"name": "m", "version": "1"}),
        ("model_version_tag.set", {"name": "m", "version": "1"}),
    ],
)
def test_a_known_event_without_its_data_is_invalid_input_naming_the_event(event, data):
    sent = delivery(event, data, at=NOW)
    with pytest.raises(InvalidInput, match=event):
        parse_event(verified(sent.headers, sent.body))


def test_an_event_of_a_newer_mlflow_is_unknown_not_an_error():
    assert said("budget_policy.exceeded", amount=1).kind is EventKind.UNKNOWN


def test_fields_of_a_newer_mlflow_are_left_alone():
    assert said("model_version.created", name="m", version="1", colour="red").version == "1"


@pytest.mark.parametrize("name", ["a b", "team/llm", "mödel ✓", "..", "a'b", "50%"])
def test_a_models_name_survives_as_it_is(name):
    assert said("model_version.created", name=name, version="1").name == name


def test_a_real_model_that_shares_the_test_buttons_name_is_no_ping():
    event = said("model_version.created", name="example_model", version="1", source="models:/m-0123")
    assert event.kind is EventKind.VERSION_CREATED


def test_the_same_words_under_another_id_share_their_body_digest():
    one, two = (Delivery(id=i, sent_at=1, body=b"{}") for i in ("a", "b"))
    assert one.body_digest == two.body_digest
