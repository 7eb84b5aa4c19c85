"""Commands at the API: the token they send, and what they say where it does not do."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from api_stand import Stand, judged, served
from deliveries import CAPTURE_SECRET
from token_stand import Tokens, with_tokens
from typer.testing import CliRunner

from gate.api.access import Access
from gate.api.app import build_app
from gate.check.asking import Asker
from gate.cli import app as command_line
from gate.client import GateClient
from gate.doctor.service import access as doctors_access
from gate.domain.access import Role
from gate.domain.errors import Forbidden, InvalidInput, Unauthenticated
from gate.domain.examination import Health
from gate.domain.question import PromotionQuestion
from gate.settings import Settings, settings


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def stand(tmp_path: Path, tokens: Tokens) -> Iterator[Stand]:
    with with_tokens(tmp_path, tokens) as made:
        yield made


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


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gate.example.org:8500", ""])
def test_a_gate_is_spoken_to_by_http_alone(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected the gate's URL as http://… or https://…, found "):
        GateClient(url)


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
        stand.client.app.state.access = Access(None)
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
