"""Bearer tokens of an OpenID Connect issuer, against a real one on loopback with real keys."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from api_stand import a_stand
from cryptography.hazmat.primitives import serialization
from oidc_issuer import AUDIENCE, Issuer, an_issuer

from gate.adapters import oidc
from gate.adapters.oidc import OidcIssuer, OidcTerms, roles_of
from gate.adapters.token_file import TokenFile
from gate.api.access import Access, build_access
from gate.domain.access import Caller, Role, made_token
from gate.domain.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from gate.settings import Settings


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with an_issuer() as made:
        yield made


@pytest.fixture
def terms(issuer: Issuer) -> OidcTerms:
    return OidcTerms(issuer=issuer.address, audience=AUDIENCE)


@pytest.fixture
def known(terms: OidcTerms) -> OidcIssuer:
    return OidcIssuer(terms)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_signed_with_a_published_key_names_its_caller_and_role(
    issuer: Issuer, known: OidcIssuer, algorithm: str
) -> None:
    issuer.add_key("other", algorithm)

    found = known.caller(issuer.token("other", sub="ann", roles=["reader", "reviewer", "unheard-of"]))

    assert found == Caller("oidc:ann", Role.REVIEWER)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": ""},
        {"sub": "two\nlines"},
    ],
    ids=repr,
)
def test_a_token_with_a_claim_that_does_not_fit_does_not_count(
    issuer: Issuer, known: OidcIssuer, changes: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        known.caller(issuer.token(**changes))


def test_the_clocks_may_differ_by_the_leeway_and_no_more(issuer: Issuer, terms: OidcTerms) -> None:
    ended = issuer.token(exp=int(time.time()) - 100)

    assert OidcIssuer(replace(terms, leeway_s=300)).caller(ended).role is Role.READER
    with pytest.raises(Unauthenticated):
        OidcIssuer(replace(terms, leeway_s=30)).caller(ended)


def test_a_token_signed_with_the_published_key_as_a_shared_secret_does_not_count(
    issuer: Issuer, known: OidcIssuer
) -> None:
    _, private = issuer.private["k1"]
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    said = f"{part({'alg': 'HS256', 'kid': 'k1', 'typ': 'JWT'})}.{part(issuer.claims())}"
    signature = jwt.get_algorithm_by_name("HS256").sign(said.encode(), public)
    forged = f"{said}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    with pytest.raises(Unauthenticated, match="InvalidAlgorithmError"):
        known.caller(forged)
    assert issuer.asked == 0


def test_a_token_without_a_signature_does_not_count(issuer: Issuer, known: OidcIssuer) -> None:
    for algorithm in ("none", "None", "NONE"):
        with pytest.raises(Unauthenticated):
            known.caller(f"{part({'alg': algorithm, 'kid': 'k1'})}.{part(issuer.claims())}.")


def test_a_shared_secret_that_an_issuer_publishes_is_no_key(issuer: Issuer, known: OidcIssuer) -> None:
    issuer.published.append({"kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256"})

    with pytest.raises(Unauthenticated):
        known.caller(jwt.encode(issuer.claims(), "secret" * 8, "HS256", headers={"kid": "s"}))


def test_a_key_counts_for_the_algorithm_that_it_names_only(issuer: Issuer, known: OidcIssuer) -> None:
    _, private = issuer.private["k1"]

    with pytest.raises(Unauthenticated, match="InvalidAlgorithmError"):
        known.caller(jwt.encode(issuer.claims(), private, "PS256", headers={"kid": "k1"}))


def test_a_changed_token_does_not_count(issuer: Issuer, known: OidcIssuer) -> None:
    head, _, signature = issuer.token().split(".")

    with pytest.raises(Unauthenticated, match="InvalidSignatureError"):
        known.caller(f"{head}.{part(issuer.claims(roles=['administrator']))}.{signature}")


def test_a_token_signed_with_another_key_under_a_known_name_does_not_count(issuer: Issuer, known: OidcIssuer) -> None:
    issuer.add_key("theirs")
    stolen = jwt.encode(issuer.claims(), issuer.private["theirs"][1], "RS256", headers={"kid": "k1"})

    with pytest.raises(Unauthenticated):
        known.caller(stolen)


@pytest.mark.parametrize("token", ["", "..", "a.b.c", "e30.e30.", "x" * 9000])
def test_what_is_no_token_at_all_does_not_count(known: OidcIssuer, token: str) -> None:
    with pytest.raises(Unauthenticated):
        known.caller(token)


def test_a_new_key_counts_as_soon_as_a_token_names_it_and_keys_are_read_once_until_then(
    issuer: Issuer, known: OidcIssuer
) -> None:
    for _ in range(5):
        known.caller(issuer.token())
    assert issuer.asked == 1

    issuer.published.clear()
    issuer.add_key("k2")

    assert known.caller(issuer.token("k2")).name == "oidc:ann"
    with pytest.raises(Unauthenticated):
        known.caller(issuer.token("k1"))
    assert issuer.asked == 2


def test_tokens_that_name_unknown_keys_do_not_make_the_gate_ask_each_time(issuer: Issuer, known: OidcIssuer) -> None:
    known.caller(issuer.token())
    issuer.private["made-up"] = issuer.private["k1"]

    for _ in range(20):
        with pytest.raises(Unauthenticated):
            known.caller(issuer.token("made-up"))

    assert issuer.asked == 2


def test_a_withdrawn_key_ends_with_the_time_that_keys_are_kept(
    issuer: Issuer, known: OidcIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    known.caller(token)
    issuer.published.clear()

    monkeypatch.setattr(oidc, "KEYS_KEPT_S", -1.0)

    with pytest.raises(Unauthenticated):
        known.caller(token)


def test_an_issuer_that_does_not_answer_lets_nobody_in(
    issuer: Issuer, known: OidcIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    issuer.up = False
    with pytest.raises(Unavailable, match="found no answer"):
        known.caller(token)

    issuer.up = True
    assert known.caller(token).role is Role.READER

    # Keys that have become too old are not fallen back on.
    issuer.up = False
    monkeypatch.setattr(oidc, "KEYS_KEPT_S", -1.0)
    with pytest.raises(Unavailable):
        known.caller(token)


def test_an_issuer_that_calls_itself_otherwise_lets_nobody_in(issuer: Issuer, known: OidcIssuer) -> None:
    issuer.calls_itself = "https://other.example"

    with pytest.raises(Unavailable, match="write GATE_OIDC_ISSUER exactly"):
        known.caller(issuer.token())


@pytest.mark.parametrize(
    ("claim", "said", "role"),
    [
        ("roles", {"roles": ["ml-leads"]}, Role.REVIEWER),
        ("realm_access.roles", {"realm_access": {"roles": ["everybody", "ml-leads"]}}, Role.REVIEWER),
        ("https://example.org/roles", {"https://example.org/roles": ["everybody"]}, Role.READER),
        ("scope", {"scope": "openid everybody"}, Role.READER),
        ("roles", {"roles": ["administrator"]}, None),
        ("roles", {"roles": {"ml-leads": True}}, None),
        ("roles", {"roles": None}, None),
        ("a.b", {"a": "x"}, None),
    ],
)
def test_the_highest_role_that_the_claim_names_counts_and_none_is_refused(
    issuer: Issuer, terms: OidcTerms, claim: str, said: dict[str, Any], role: Role | None
) -> None:
    roles = roles_of("ml-leads=reviewer, everybody=reader")
    asked = OidcIssuer(replace(terms, roles_claim=claim, roles=roles))
    token = issuer.token(**{"roles": None, **said})

    if role is not None:
        assert asked.caller(token).role is role
    else:
        with pytest.raises(Forbidden, match="found none; have the issuer grant one"):
            asked.caller(token)


@pytest.mark.parametrize("text", ["ml-leads", "ml-leads=boss", "=reader"])
def test_a_mapping_of_roles_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"GATE_OIDC_ROLES: expected"):
        roles_of(text)


def test_keys_are_not_taken_from_an_address_without_tls() -> None:
    with pytest.raises(InvalidInput, match="expected an https:// address"):
        OidcIssuer(OidcTerms(issuer="http://issuer.example.org", audience=AUDIENCE))


def test_an_issuer_needs_an_audience_and_is_no_open_api(issuer: Issuer) -> None:
    with pytest.raises(InvalidInput, match="expected GATE_OIDC_AUDIENCE with GATE_OIDC_ISSUER, found none"):
        build_access(Settings(oidc_issuer=issuer.address))
    with pytest.raises(InvalidInput, match="expected GATE_OIDC_ISSUER or GATE_API_OPEN, found both"):
        build_access(Settings(oidc_issuer=issuer.address, oidc_audience=AUDIENCE, api_open=True))


def test_the_api_takes_the_issuers_tokens_and_those_of_its_file_side_by_side(
    issuer: Issuer, tmp_path: Path, known: OidcIssuer
) -> None:
    token, line = made_token("ci", "submitter")
    (tmp_path / "tokens.yaml").write_text(line)
    stand = a_stand(tmp_path, access=Access(TokenFile(tmp_path / "tokens.yaml"), ("s",), oidc=known))

    def status(given: str | None) -> int:
        headers = {} if given is None else {"Authorization": f"Bearer {given}"}
        return stand.client.get("/v1/evaluations", headers=headers).status_code

    assert [status(each) for each in (issuer.token(), token)] == [200, 200]
    assert [status(each) for each in (None, "bgt_x", issuer.token(aud="x"))] == [401, 401, 401]
    assert status(issuer.token(roles=[])) == 403
    issuer.up = False
    assert status(issuer.token("k1")) == 200  # its keys are known
    asked = stand.client.post("/v1/promotions", headers={"Authorization": f"Bearer {issuer.token()}"}, json={})
    assert asked.status_code == 403
    stand.ledger.close()


def test_with_an_issuer_alone_nobody_comes_in_without_its_token(issuer: Issuer, tmp_path: Path) -> None:
    access = build_access(Settings(oidc_issuer=issuer.address, oidc_audience=AUDIENCE))
    stand = a_stand(tmp_path, access=access)

    assert stand.client.get("/v1/evaluations").status_code == 401
    issuer.up = False
    refused = stand.client.get("/v1/evaluations", headers={"Authorization": f"Bearer {issuer.token()}"})
    assert refused.status_code == 503
    # A browser without a token is shown where to sign in, and not sent round in a circle.
    assert stand.client.get("/sign-in").status_code == 200
    stand.ledger.close()


def test_a_refused_token_is_not_in_what_the_refusal_says(issuer: Issuer, known: OidcIssuer) -> None:
    token = issuer.token(aud="secret-audience", sub="somebody-private")

    with pytest.raises(Unauthenticated) as refused:
        known.caller(token)

    assert not any(word in str(refused.value) for word in (token, "secret-audience", "somebody-private"))
