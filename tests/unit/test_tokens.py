"""Tokens, roles and sealed sessions, without a server."""

import hmac
from pathlib import Path

import pytest
import yaml

from gate.adapters.token_file import read_tokens
from gate.domain import access
from gate.domain.access import Role, TokenEntry, digest_of, holder, made_token, sealed_session, session_holder
from gate.domain.errors import InvalidInput
from gate.settings import Settings

ANA = TokenEntry(name="ana", role=Role.READER, sha256=digest_of("ana's"))
BEN = TokenEntry(name="ben", role=Role.REVIEWER, sha256=digest_of("ben's"))


def test_a_new_token_has_256_bits_is_never_the_same_and_its_line_is_one_of_the_token_file(tmp_path: Path) -> None:
    made = [made_token("ci", "submitter") for _ in range(50)]
    (tmp_path / "tokens.yaml").write_text(made[0][1] + "\n")
    (entry,) = read_tokens(tmp_path / "tokens.yaml")

    assert len({token for token, _ in made}) == 50
    assert all(len(token.removeprefix("bgt_")) == 43 for token, _ in made)
    assert (entry.name, entry.role) == ("ci", Role.SUBMITTER)
    assert holder([ANA, entry], made[0][0]) == entry
    assert made[0][0] not in made[0][1]


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("ci", "root", "expected one of reader, submitter, policy_author, reviewer, administrator"),
        ("a b", "reader", "digits"),
    ],
)
def test_a_token_for_an_unknown_role_or_an_odd_name_is_refused(name: str, role: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        made_token(name, role)


def test_the_roles_are_ordered_as_they_are_named() -> None:
    assert [role.word for role in sorted(Role)] == ["reader", "submitter", "policy_author", "reviewer", "administrator"]


def test_every_entry_is_compared_and_each_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    class Watched:
        compare_digest = staticmethod(watched)

    monkeypatch.setattr(access, "hmac", Watched)

    assert holder([ANA, BEN], "ana's") == ANA
    assert holder([ANA, BEN], "nobody's") is None
    assert compared == [ANA.sha256.encode(), BEN.sha256.encode()] * 2


def test_a_session_is_its_owners_until_it_ends() -> None:
    cookie = sealed_session(ANA, 1000, ["key"])

    assert session_holder([BEN, ANA], cookie, ["key"], 999) == ANA
    assert session_holder([BEN, ANA], cookie, ["key"], 1000) is None


def test_a_session_outlives_the_rotation_of_the_key_and_not_its_removal() -> None:
    cookie = sealed_session(ANA, 1000, ["old"])

    assert session_holder([ANA], cookie, ["new", "old"], 1) == ANA
    assert session_holder([ANA], cookie, ["new"], 1) is None


def test_a_session_ends_with_its_token_and_its_role_is_the_one_that_the_file_says_now() -> None:
    cookie = sealed_session(ANA, 1000, ["key"])
    other = ANA.model_copy(update={"sha256": digest_of("another")})
    risen = ANA.model_copy(update={"role": Role.REVIEWER})

    assert session_holder([BEN], cookie, ["key"], 1) is None
    assert session_holder([other], cookie, ["key"], 1) is None
    assert session_holder([risen], cookie, ["key"], 1) == risen


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "ana",
        "ana:2000",
        "ana:2000:",
        "ana:x:y",
        "ana:²:y",
        "ana:-1:y",
        "ana:" + "9" * 5000 + ":y",
        "ana:2000:\udcff",
    ],
)
def test_a_made_up_session_is_nobodys(forged: str) -> None:
    assert session_holder([ANA], forged, ["key"], 1) is None


def test_a_session_whose_end_or_owner_was_changed_is_nobodys() -> None:
    cookie = sealed_session(ANA, 1000, ["key"])

    assert session_holder([ANA, BEN], cookie.replace("1000", "9000"), ["key"], 1) is None
    assert session_holder([ANA, BEN], cookie.replace("ana", "ben"), ["key"], 1) is None


LINE = f'- {{name: "ci", role: reader, sha256: "{"0" * 64}"}}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("[]", "expected a list with at least one token"),
        ("name: ci", "expected a list"),
        ("- ci", ":1: expected - {name"),
        (LINE + LINE.replace('"ci"', '"cd"'), ":2: expected each token once"),
        (LINE + LINE.replace("0", "1"), ":2: expected each name once"),
        (LINE.replace("reader", "root"), ":1: .*role"),
        (LINE.replace("reader", "4"), ":1: .*role"),
        (LINE.replace("0" * 64, "0" * 63), ":1: .*sha256"),
        (LINE.replace("0" * 64, "bgt_secret"), ":1: .*sha256"),
        (LINE.replace("role: reader, ", ""), ":1: .*role: missing"),
        (LINE.replace("role:", "rule: x, role:"), ":1: .*rule: extra_forbidden"),
        ("- {name: ci", "mend the syntax"),
    ],
)
def test_a_malformed_token_file_is_refused_with_its_line_and_without_what_may_be_a_secret(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message) as refused:
        read_tokens(file)

    assert "secret" not in str(refused.value)
    assert "GATE_POLICIES" not in str(refused.value)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="check GATE_TOKENS_FILE"):
        read_tokens(tmp_path / "tokens.yaml")


def test_the_token_file_is_plain_yaml() -> None:
    assert yaml.safe_load(made_token("ci", "reader")[1])[0].keys() == {"name", "role", "sha256"}


def test_the_token_to_ask_with_comes_from_the_environment_or_a_file_and_not_from_both(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("bgt_a\n")
    given = Settings(api_token="bgt_b")

    assert Settings().token_of_api() is None
    assert given.token_of_api() == "bgt_b"
    assert "bgt_b" not in repr(given)
    assert Settings(api_token_file=file).token_of_api() == "bgt_a"
    with pytest.raises(InvalidInput, match="found both"):
        Settings(api_token="bgt_b", api_token_file=file).token_of_api()
    for text, message in (("", "0 words"), ("a b", "2 words")):
        file.write_text(text)
        with pytest.raises(InvalidInput, match=message):
            Settings(api_token_file=file).token_of_api()
    with pytest.raises(InvalidInput, match="No such file"):
        Settings(api_token_file=tmp_path / "none").token_of_api()
