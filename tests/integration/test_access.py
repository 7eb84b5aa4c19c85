"""Who may ask the API what: every route, every kind of caller, and what the settings make of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from api_stand import Stand, a_stand, judged
from deliveries import CAPTURE_SECRET
from fastapi.testclient import TestClient
from starlette.requests import Request
from token_stand import ROUTES, Tokens, ask, signed_in, with_tokens

from gate.adapters.token_file import TokenFile
from gate.api.access import Access, build_access
from gate.api.app import create_app
from gate.api.routes import NEEDED, PUBLIC
from gate.domain.access import Role
from gate.domain.errors import InvalidInput
from gate.settings import Settings


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def stand(tmp_path: Path, tokens: Tokens) -> Iterator[Stand]:
    with with_tokens(tmp_path, tokens) as made:
        yield made


def routes_of(routes: object) -> Iterator[tuple[str, str]]:
    """Every method and path that the application serves."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


def test_every_route_of_the_application_stands_in_the_table_or_is_everybodys_and_nothing_else_does(
    stand: Stand,
) -> None:
    served_here = list(routes_of(stand.client.app.routes))

    assert len(served_here) == len(set(served_here)) > 25
    assert set(served_here) == set(NEEDED) | PUBLIC
    assert not set(NEEDED) & PUBLIC


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_a_route_answers_only_a_known_token_of_a_role_that_suffices(stand: Stand, tokens: Tokens, route) -> None:
    for headers in ({}, {"Authorization": "Bearer bgt_wrong"}, {"Authorization": f"Basic {tokens.of[Role.READER]}"}):
        refused = ask(stand, route, headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"
    for role in Role:
        reply = ask(stand, route, tokens.header(role))
        if role < NEEDED[route]:
            assert reply.status_code == 403
            assert f"role {NEEDED[route].word} or more, found {role.word}" in reply.json()["detail"]
        else:
            assert reply.status_code in (200, 400, 404, 422), reply.text


@pytest.mark.parametrize("route", sorted(PUBLIC), ids=" ".join)
def test_what_is_everybodys_is_answered_without_a_token(stand: Stand, route) -> None:
    reply = ask(stand, route)

    # A form without a token, and a delivery without a signature, are refused by their own routes.
    own = route in (("POST", "/sign-in"), ("POST", "/webhooks/mlflow"))
    assert "www-authenticate" not in reply.headers
    assert (reply.status_code in (200, 303, 422)) or (own and reply.status_code == 401)


def test_what_stands_in_no_table_is_not_served_whoever_asks(tmp_path: Path, tokens: Tokens) -> None:
    stand = a_stand(tmp_path, access=Access(TokenFile(tokens.file), ("k",)))
    application = create_app(stand.door, Access(None))
    application.add_api_route("/v1/forgotten", lambda: "served", methods=["GET"])
    application.add_api_route("/v1/backlog", lambda: "served", methods=["DELETE"])
    with TestClient(application) as client:
        assert client.get("/v1/forgotten").status_code == 404
        assert client.delete("/v1/backlog").status_code == 405
        assert client.delete("/v1/backlog").headers["allow"] == "GET"
        assert client.get("/v1/backlog").status_code == 200
    stand.ledger.close()


def test_a_body_is_not_read_before_it_is_known_who_sends_it(stand: Stand) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(True)
        yield b"{not json"

    assert stand.client.post("/v1/promotions", content=body()).status_code == 401


def test_who_can_be_told_an_address_and_no_header_sends_the_token_as_its_password(stand: Stand, tokens: Tokens) -> None:
    assert stand.client.get("/v1/backlog", auth=("flagger", tokens.of[Role.READER])).status_code == 200
    for wrong in (("flagger", "bgt_wrong"), ("flagger", ""), (tokens.of[Role.READER], "")):
        assert stand.client.get("/v1/backlog", auth=wrong).status_code == 401


def test_a_role_may_do_what_those_below_it_may(stand: Stand, tokens: Tokens) -> None:
    judged(stand, stand.register())
    question = {"name": "my-llm", "version": "3"}
    for role in (Role.SUBMITTER, Role.REVIEWER, Role.ADMINISTRATOR):
        assert stand.client.post("/v1/promotions", json=question, headers=tokens.header(role)).status_code == 200


def test_the_token_file_is_read_again_when_it_changes(stand: Stand, tokens: Tokens) -> None:
    def status() -> int:
        return stand.client.get("/v1/backlog", headers=tokens.header(Role.READER)).status_code

    assert status() == 200
    tokens.write(Role.ADMINISTRATOR)
    assert status() == 401
    tokens.write(*Role)
    assert status() == 200


def test_a_token_file_that_turns_malformed_lets_nobody_in_and_the_log_says_so_once(
    stand: Stand, tokens: Tokens
) -> None:
    good = tokens.file.read_text()
    cookie = signed_in(stand, tokens)
    with structlog.testing.capture_logs() as logs:
        for text in (good + "- {name: new, role: root}\n", ""):
            tokens.text(text)
            for _ in range(3):
                reply = stand.client.get("/v1/backlog", headers=tokens.header(Role.ADMINISTRATOR))
                assert reply.status_code == 503
                assert stand.client.get("/queue", headers=cookie).status_code == 503
        tokens.file.unlink()
        assert stand.client.get("/v1/backlog", headers=tokens.header(Role.ADMINISTRATOR)).status_code == 503
        assert stand.client.get("/healthz").status_code == 200
    told = [entry for entry in logs if entry["event"].startswith("token file")]
    assert [entry["log_level"] for entry in told] == ["error"] * 3
    assert "root" not in reply.text
    tokens.text(good)
    assert stand.client.get("/v1/backlog", headers=tokens.header(Role.READER)).status_code == 200


def test_no_token_reaches_the_log_or_an_answer(stand: Stand, tokens: Tokens) -> None:
    with structlog.testing.capture_logs() as logs:
        replies = [ask(stand, ("POST", "/v1/promotions"), tokens.header(Role.READER))]
        replies.append(ask(stand, ("GET", "/v1/backlog"), {"Authorization": "Bearer bgt_wrong"}))
        replies.append(stand.client.post("/sign-in", data={"token": "bgt_wrong"}))

    assert [reply.status_code for reply in replies] == [403, 401, 401]
    for text in (str(logs), *(reply.text for reply in replies)):
        assert "bgt_" not in text


@pytest.mark.parametrize("bind", ["", "127.0.0.1:8500", "[::1]:8500", "localhost:8500"])
def test_without_a_token_file_this_machine_alone_is_served_and_only_reads_and_asks(bind: str) -> None:
    access = build_access(Settings(api_bind=bind))
    assert access.tokens is None
    stranger = access.caller(Request({"type": "http", "method": "GET", "path": "/", "headers": []}))
    assert (stranger.name, stranger.role) == ("", Role.SUBMITTER)


@pytest.mark.parametrize("bind", ["0.0.0.0:8500", "[::]:8500", "10.0.0.1:8500", "gate.example.org:443", "0:8500"])
def test_without_a_token_file_no_other_address_is_served_unless_that_is_said_on_purpose(bind: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected GATE_TOKENS_FILE.*basin-gate token new.*GATE_API_OPEN=true"):
        build_access(Settings(api_bind=bind))
    with structlog.testing.capture_logs() as logs:
        assert build_access(Settings(api_bind=bind, api_open=True)).tokens is None
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_public_address_without_a_bind_needs_a_token_file_too() -> None:
    with pytest.raises(InvalidInput, match=r"gate\.example\.org"):
        build_access(Settings(public_url="http://gate.example.org:8500"))


def test_a_malformed_token_file_or_both_settings_refuse_to_start(tmp_path: Path, tokens: Tokens) -> None:
    with pytest.raises(InvalidInput, match="found both"):
        build_access(Settings(tokens_file=tokens.file, api_open=True))
    tokens.text("- nonsense\n")
    with pytest.raises(InvalidInput, match=r"tokens\.yaml:1: expected"):
        build_access(Settings(tokens_file=tokens.file))


def test_sessions_are_secure_where_browsers_come_by_tls(tokens: Tokens) -> None:
    secret = {"webhook_secrets": CAPTURE_SECRET, "tokens_file": tokens.file}
    assert build_access(Settings(public_url="https://gate.example.org", **secret)).secure
    assert not build_access(Settings(**secret)).secure
