"""A served API that asks for tokens, and a token of each role."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from api_stand import Stand, a_stand
from deliveries import CAPTURE_SECRET

from gate.adapters.token_file import TokenFile
from gate.api.access import Access
from gate.api.routes import NEEDED
from gate.domain.access import Role, made_token

FILLED = {"{key}": "k", "{id}": "w", "{digest}": "d", "{name}": "style.css", "{name:path}": "my-llm", "{version}": "3"}
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


@contextmanager
def with_tokens(folder: Path, tokens: Tokens) -> Iterator[Stand]:
    """The API, which reads these tokens."""
    made = a_stand(folder, access=Access(TokenFile(tokens.file), (CAPTURE_SECRET,)))
    made.client.app.state.access = replace(made.client.app.state.access, clock=made.clock)
    yield made
    made.ledger.close()


def path(template: str) -> str:
    """A path of a route with its parts filled in."""
    filled = template.replace("{format}", "cyclonedx")
    for part, value in FILLED.items():
        filled = filled.replace(part, value)
    return filled


def ask(stand: Stand, route: tuple[str, str], headers: Mapping[str, str] = {}) -> httpx.Response:
    """The answer to a route, asked with these headers."""
    body = {"name": "my-llm", "version": "3"} if route[0] == "POST" else None
    return stand.client.request(route[0], path(route[1]), json=body, headers=headers, follow_redirects=False)


def signed_in(stand: Stand, tokens: Tokens, role: Role = Role.READER) -> dict[str, str]:
    """The session's cookie as a header."""
    reply = stand.client.post("/sign-in", data={"token": tokens.of[role]}, follow_redirects=False)
    assert reply.status_code == 303
    stand.client.cookies.clear()
    return {"Cookie": reply.headers["set-cookie"].partition(";")[0]} | HTML
