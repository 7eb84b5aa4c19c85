"""Browsers at the API: signing in, the session that comes of it, and what other sites cannot do with it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_stand import Stand
from token_stand import HTML, Tokens, ask, path, signed_in, with_tokens

from gate.api.routes import PAGES
from gate.domain.access import SESSION_S, Role


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def stand(tmp_path: Path, tokens: Tokens) -> Iterator[Stand]:
    with with_tokens(tmp_path, tokens) as made:
        yield made


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
    stand.client.app.state.access = replace(stand.client.app.state.access, secure=True)
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
