"""Who may ask the API what: every route, every kind of caller, from the command line and from a browser."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import structlog
from api_stand import Stand, a_stand, judged, served
from deliveries import CAPTURE_SECRET
from fastapi.testclient import TestClient
from starlette.requests import Request
from typer.testing import CliRunner

from gate.adapters.token_file import TokenFile
from gate.api.access import Access, build_access
from gate.api.app import build_app, create_app
from gate.api.routes import NEEDED, PAGES, PUBLIC
from gate.check.asking import Asker
from gate.cli import app as command_line
from gate.client import GateClient
from gate.doctor.service import access as doctors_access
from gate.domain.access import SESSION_S, Role, made_token
from gate.domain.errors import Forbidden, InvalidInput, Unauthenticated
from gate.domain.examination import Health
from gate.domain.question import PromotionQuestion
from gate.settings import Settings, settings

FILLED = {"{key}": "k", "{digest}": "d", "{name}": "style.css", "{name:path}": "my-llm", "{version}": "3"}
ROUTES = sorted(NEEDED)
HTML = {"Accept": "text/html"}


class Tokens:
    """A token file with one token of each role."""

    def __init__(self, folder: Path) -> None:
        made = {role: made_token(role.word, role.word) for role in Role}
        self.file = folder / "tokens.yaml"
        self.of: Mapping[Role, str] = {role: token for role, (token, _) in made.items()}
        self.lines: Mapping[Role, str] = {role: line for role, (_, line) in made.items()}
        self.write(*Role)

    def write(self, *roles: Role) -> None:
        self.text("".join(f"{self.lines[role]}\n" for role in roles))

    def text(self, text: str) -> None:
        """Replaces the file, as editors and Kubernetes do."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    def header(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.of[role]}"}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def stand(tmp_path: Path, tokens: Tokens) -> Iterator[Stand]:
    made = a_stand(tmp_path, access=Access(TokenFile(tokens.file), (CAPTURE_SECRET,)))
    made.client.app.state.access = replace(made.client.app.state.access, clock=made.clock)  # type: ignore[attr-defined]
    yield made
    made.ledger.close()


def routes_of(routes: object) -> Iterator[tuple[str, str]]:
    """Every method and path that the application serves."""
    for route in routes:  # type: ignore[attr-defined]
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


def path(template: str) -> str:
    filled = template.replace("{format}", "cyclonedx")
    for part, value in FILLED.items():
        filled = filled.replace(part, value)
    return filled


def ask(stand: Stand, route: tuple[str, str], headers: Mapping[str, str] = {}) -> httpx.Response:
    body = {"name": "my-llm", "version": "3"} if route[0] == "POST" else None
    return stand.client.request(route[0], path(route[1]), json=body, headers=headers, follow_redirects=False)


def test_every_route_of_the_application_stands_in_the_table_or_is_everybodys_and_nothing_else_does(
    stand: Stand,
) -> None:
    served_here = list(routes_of(stand.client.app.routes))  # type: ignore[attr-defined]

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


# --- browsers


def signed_in(stand: Stand, tokens: Tokens, role: Role = Role.READER) -> dict[str, str]:
    """The session's cookie as a header."""
    reply = stand.client.post("/sign-in", data={"token": tokens.of[role]}, follow_redirects=False)
    assert reply.status_code == 303
    stand.client.cookies.clear()
    return {"Cookie": reply.headers["set-cookie"].partition(";")[0]} | HTML


@pytest.mark.parametrize("route", sorted(PAGES), ids=" ".join)
def test_a_person_is_led_to_where_one_signs_in_and_back(stand: Stand, tokens: Tokens, route) -> None:
    led = stand.client.get(path(route[1]) + "?a=1&b=2", headers=HTML, follow_redirects=False)
    form = stand.client.get(led.headers["location"])

    assert led.status_code == 303
    assert f'value="{path(route[1])}?a=1&amp;b=2"' in form.text
    assert form.headers["content-security-policy"].startswith("default-src 'none'")
    back = stand.client.post(
        "/sign-in", data={"token": tokens.of[Role.READER], "to": path(route[1])}, follow_redirects=False
    )
    assert (back.status_code, back.headers["location"]) == (303, path(route[1]))


def test_the_session_is_kept_from_scripts_and_other_sites_and_holds_no_token(stand: Stand, tokens: Tokens) -> None:
    data = {"token": tokens.of[Role.READER]}
    plain = stand.client.post("/sign-in", data=data, follow_redirects=False).headers["set-cookie"]
    stand.client.app.state.access = replace(stand.client.app.state.access, secure=True)  # type: ignore[attr-defined]
    secure = stand.client.post("/sign-in", data=data, follow_redirects=False).headers["set-cookie"]

    for cookie in (plain, secure):
        assert {"HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_S}"} <= set(cookie.split("; "))
        assert tokens.of[Role.READER] not in cookie
    assert "Secure" not in plain.split("; ")
    assert "Secure" in secure.split("; ")
    assert secure.startswith("__Host-")


def test_a_session_reads_pages_until_it_ends_and_says_whose_it_is(stand: Stand, tokens: Tokens) -> None:
    cookie = signed_in(stand, tokens)
    shown = stand.client.get("/queue", headers=cookie)
    assert shown.status_code == 200
    assert "<span>reader</span>" in shown.text
    assert stand.client.get("/v1/backlog", headers=cookie).status_code == 200
    stand.clock.now += SESSION_S + 1
    assert stand.client.get("/queue", headers=cookie, follow_redirects=False).status_code == 303


def test_a_session_ends_with_its_token(stand: Stand, tokens: Tokens) -> None:
    cookie = signed_in(stand, tokens)
    tokens.write(Role.ADMINISTRATOR)
    assert stand.client.get("/queue", headers=cookie, follow_redirects=False).status_code == 303


def test_a_cookie_alone_never_posts(stand: Stand, tokens: Tokens) -> None:
    cookie = signed_in(stand, tokens, Role.ADMINISTRATOR)
    assert ask(stand, ("POST", "/v1/promotions"), cookie).status_code == 401


def test_another_site_can_neither_sign_in_nor_out(stand: Stand, tokens: Tokens) -> None:
    data, foreign = {"token": tokens.of[Role.READER]}, {"Sec-Fetch-Site": "cross-site"}
    for place in ("/sign-in", "/sign-out"):
        reply = stand.client.post(place, data=data, headers=foreign, follow_redirects=False)
        assert reply.status_code == 403
        assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    "to", ["//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb: c", "javascript:x"]
)
def test_signing_in_leads_nowhere_else(stand: Stand, tokens: Tokens, to: str) -> None:
    data = {"token": tokens.of[Role.READER], "to": to}
    assert stand.client.post("/sign-in", data=data, follow_redirects=False).headers["location"] == "/"


def test_a_form_longer_than_any_token_is_refused(stand: Stand) -> None:
    assert stand.client.post("/sign-in", data={"token": "x" * 10_000}).status_code == 413


def test_signing_out_takes_the_session_from_the_browser(stand: Stand, tokens: Tokens) -> None:
    stand.client.post("/sign-in", data={"token": tokens.of[Role.READER]}, follow_redirects=False)
    assert stand.client.get("/sign-in?to=/queue", follow_redirects=False).headers["location"] == "/queue"
    assert stand.client.post("/sign-out", follow_redirects=False).headers["location"] == "/sign-in"
    assert not stand.client.cookies
    assert stand.client.get("/queue", headers=HTML, follow_redirects=False).status_code == 303


# --- what the settings make of it


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


# --- commands


@pytest.fixture
def asked_with(monkeypatch: pytest.MonkeyPatch):
    """Runs a command with these variables."""

    def run(words: list[str], **variables: str):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        return CliRunner().invoke(command_line, words)

    yield run
    settings.cache_clear()


def test_commands_send_the_token_and_say_what_to_do_without_it(stand: Stand, tokens: Tokens, asked_with) -> None:
    version = stand.register()
    judged(stand, version)
    words = ["check", f"models:/{version.name}/{version.version}"]
    with served(stand) as url:
        none = asked_with(words, GATE_PUBLIC_URL=url)
        low = asked_with(words, GATE_API_TOKEN=tokens.of[Role.READER])
        listed = asked_with(["ls", "--json"])
        asked = asked_with(words, GATE_API_TOKEN=tokens.of[Role.SUBMITTER])
        wrong = asked_with(["ls"], GATE_API_TOKEN="bgt_wrong")

    assert isinstance(none.exception, Unauthenticated)
    assert "set GATE_API_TOKEN or GATE_API_TOKEN_FILE" in str(none.exception)
    assert isinstance(low.exception, Forbidden)
    assert "role submitter or more" in str(low.exception)
    assert (listed.exit_code, asked.exit_code) == (0, 0)
    assert asked.stdout.startswith("allowed")
    assert isinstance(wrong.exception, Unauthenticated)
    assert "the token of GATE_API_TOKEN" in str(wrong.exception)


def test_a_refused_question_is_no_denial_and_is_not_waited_for(stand: Stand, tokens: Tokens) -> None:
    question = PromotionQuestion(name="my-llm", version="3")
    with served(stand) as url:
        asker = Asker(GateClient(url, token=tokens.of[Role.READER]), sleep=lambda _: pytest.fail("waited"))
        with pytest.raises(Forbidden):
            asker.wait(question, 60, lambda _: None)


def test_a_token_is_not_sent_on_to_where_a_redirection_leads(tmp_path: Path, tokens: Tokens) -> None:
    seen: list[tuple[str, str | None]] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            self.send_response(302 if self.path == "/a" else 200)
            self.send_header("Location", "/b")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        GateClient(f"http://127.0.0.1:{server.server_port}", token="bgt_x").get("/a")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen == [("/a", "Bearer bgt_x"), ("/b", None)]


def examined(url: str, **given: object) -> list[tuple[str, Health]]:
    return [(found.check, found.health) for found in doctors_access(Settings(public_url=url, **given))]


def test_the_doctor_finds_out_whether_the_api_asks_for_tokens_and_takes_this_one(stand: Stand, tokens: Tokens) -> None:
    with served(stand) as url:
        assert examined(url) == [("API's access", Health.OK)]
        assert examined(url, api_token=tokens.of[Role.READER]) == [("API's access", Health.OK)]
        wrong = examined(url, api_token="bgt_wrong")
        stand.client.app.state.access = Access(None)  # type: ignore[attr-defined]
        assert examined(url) == [("API's access", Health.OK)]
        # Linux takes this for the machine itself, and the gate for any address.
        assert examined(url.replace("127.0.0.1", "0.0.0.0")) == [("API's access", Health.WARNING)]
    assert wrong == [("API's access", Health.OK), ("API token", Health.PROBLEM)]
    assert examined(url) == [("API's access", Health.UNCHECKED)]


def test_nothing_is_begun_where_the_api_may_not_be_served(tmp_path: Path) -> None:
    given = Settings(api_bind="0.0.0.0:8500", webhook_secrets=CAPTURE_SECRET, state_dir=tmp_path / "state")
    with pytest.raises(InvalidInput, match="expected GATE_TOKENS_FILE"):
        build_app(given)
    assert not (tmp_path / "state").exists()


def test_the_command_prints_a_token_and_the_line_that_lets_it_in(stand: Stand, tokens: Tokens) -> None:
    done = CliRunner().invoke(command_line, ["token", "new", "ops", "--role", "administrator"])
    token, line = done.stdout.splitlines()
    tokens.text(line + "\n")

    assert stand.client.get("/v1/backlog", headers={"Authorization": f"bearer {token}"}).status_code == 200
