"""The pages on waivers: which there are, what one lets, and who may do what about it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from api_stand import Stand, judged
from builders import a_verdict, a_version, an_estimate, an_evidence
from token_stand import HTML, Tokens, signed_in, with_tokens

from gate.adapters.policy_files import SHIPPED, load_policies
from gate.domain.access import Role
from gate.domain.evidence import Measurement, Name
from gate.domain.judging import judge
from gate.domain.waiver import Approval, Waiver

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e'\" onload=x"
DAY = 86_400
OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def stand(tmp_path: Path, tokens: Tokens) -> Iterator[Stand]:
    with with_tokens(tmp_path, tokens) as made:
        made.client.headers.update(tokens.header(Role.READER) | HTML)
        yield made


def kept(stand: Stand, number: int = 1, *approvers: str, critical: bool = False, days: float = 20, **also: str) -> str:
    """A waiver that a submitter asked for and that these people approved; its id."""
    now = int(stand.clock())
    given = {"owner": "nlp", "reason": "no math is asked of it", "ticket": f"RISK-{number}", "rule": "keeps"} | also
    value = Waiver(
        candidate_digest=a_verdict().candidate_digest,
        policy="default",
        requested_by="submitter",
        requested_at=now,
        expires_at=now + int(days * DAY),
        **given,
    )
    stand.ledger.ask_waiver(value, critical, now)
    for name in approvers:
        stand.ledger.approve_waiver(value.id, Approval(approver=name, at=now), now)
    return value.id


def act(stand: Stand, tokens: Tokens, role: Role, place: str, origin: dict[str, str] = OWN, **given: str):
    """What a form of a page does for whoever is signed in with that role."""
    headers = signed_in(stand, tokens, role) | origin
    client = stand.client
    bearer = client.headers.pop("authorization")
    try:
        return client.post(place, data=given, headers=headers, follow_redirects=False)
    finally:
        client.headers["authorization"] = bearer


def test_waivers_are_listed_by_how_they_stand_and_the_ones_that_end_soon_are_marked(stand: Stand) -> None:
    soon, later = kept(stand, 1, "reviewer", days=3), kept(stand, 2, "reviewer")
    waiting = kept(stand, 3, "reviewer", critical=True)
    ended = kept(stand, 4)
    stand.ledger.revoke_waiver(ended, "reviewer", "no longer", stand.clock())

    page = stand.client.get("/waivers").text

    assert re.findall(r'<a href="/waivers/(\w{64})">', page) == [soon, *sorted([later, waiting]), ended]
    assert '<span class="word unsure">ends in 3 days</span>' in page
    assert '<span class="soft">ends in 20 days</span>' in page
    assert "waits for another approval" in page
    for standing, number in (("in_force", 2), ("waiting", 1), ("ended", 1)):
        shown = stand.client.get(f"/waivers?standing={standing}").text
        assert len(re.findall(r'<a href="/waivers/\w{64}">', shown)) == number
        assert re.search(rf"standing={standing}.*<b>{number}</b>", page)


def test_a_waiver_that_is_over_is_shown_as_expired_before_any_sweep(stand: Stand) -> None:
    id_ = kept(stand, 1, "reviewer", days=1)
    stand.clock.now += 2 * DAY
    assert id_ in stand.client.get("/waivers?standing=ended").text
    page = stand.client.get(f"/waivers/{id_}").text
    assert "Expired" in page
    assert '<form class="review"' not in page


def test_a_long_list_of_waivers_is_walked_by_its_links(stand: Stand) -> None:
    ids = {kept(stand, number) for number in range(60)}
    seen, address = [], "/waivers"
    while address:
        page = stand.client.get(address).text
        seen += re.findall(r'<a href="/waivers/(\w{64})">', page)
        found = re.search(r'href="([^"]+)" rel="next"', page)
        address = found[1].replace("&amp;", "&") if found else ""
    assert len(seen) == 60
    assert set(seen) == ids


def test_what_people_wrote_in_a_waiver_is_inert(stand: Stand) -> None:
    id_ = kept(stand, 1, owner=HOSTILE, reason=HOSTILE, rule=HOSTILE, ticket=HOSTILE)
    stand.ledger.revoke_waiver(id_, "reviewer", HOSTILE, stand.clock())
    for address in ("/waivers", f"/waivers/{id_}"):
        page = stand.client.get(address).text
        assert "<script>" not in page
        assert not set(page) & {"\x1b", "\u202e"}
        assert "&lt;script&gt;" in page


def test_a_reviewer_approves_by_a_form_and_ends_it_by_another(stand: Stand, tokens: Tokens) -> None:
    id_ = kept(stand)
    answer = act(stand, tokens, Role.REVIEWER, f"/waivers/{id_}/approvals")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/waivers/{id_}")
    assert stand.ledger.waiver(id_).state == "granted"
    assert "reviewer" in stand.client.get(f"/waivers/{id_}").text

    answer = act(stand, tokens, Role.REVIEWER, f"/waivers/{id_}/revocation", reason="the next version has it right")
    assert answer.status_code == 303
    assert stand.ledger.waiver(id_).ended_because == "the next version has it right"
    assert "Ended because: the next version has it right" in stand.client.get(f"/waivers/{id_}").text


def test_the_forms_are_shown_to_those_who_may_use_them(stand: Stand, tokens: Tokens) -> None:
    critical = kept(stand, 1, "reviewer", critical=True)
    read = stand.client.get(f"/waivers/{critical}").text
    approved = stand.client.get(f"/waivers/{critical}", headers=tokens.header(Role.REVIEWER)).text
    other = stand.client.get(f"/waivers/{critical}", headers=tokens.header(Role.ADMINISTRATOR)).text

    assert '<form class="review"' not in read
    assert "Somebody signed in with a token of the role" in read
    assert "You approved it already" in approved
    assert f'action="/waivers/{critical}/approvals"' not in approved
    assert f'action="/waivers/{critical}/approvals"' in other
    assert f'action="/waivers/{critical}/revocation"' in other


@pytest.mark.parametrize("place", ["approvals", "revocation"])
def test_nobody_below_a_reviewer_and_no_other_site_acts_on_a_waiver(stand: Stand, tokens: Tokens, place: str) -> None:
    id_ = kept(stand)
    address = f"/waivers/{id_}/{place}"
    below = act(stand, tokens, Role.POLICY_AUTHOR, address, reason="why")
    assert (below.status_code, "with the role reviewer or more" in below.text) == (403, True)
    assert below.headers["content-type"].startswith("text/html")
    foreign = act(stand, tokens, Role.REVIEWER, address, {"Sec-Fetch-Site": "cross-site"}, reason="why")
    assert (foreign.status_code, "sign in in another tab" in foreign.text) == (401, True)
    assert (stand.ledger.waiver(id_).state, stand.ledger.waiver(id_).waiver.approvals) == ("requested", ())


def test_what_cannot_be_done_to_a_waiver_is_a_page_that_says_why(stand: Stand, tokens: Tokens) -> None:
    id_ = kept(stand)
    without = act(stand, tokens, Role.REVIEWER, f"/waivers/{id_}/revocation", reason=" ")
    assert (without.status_code, "reason" in without.text) == (400, True)
    act(stand, tokens, Role.REVIEWER, f"/waivers/{id_}/approvals")
    again = act(stand, tokens, Role.REVIEWER, f"/waivers/{id_}/approvals")
    assert again.status_code == 400
    assert "expected a waiver that is requested, found one that is granted" in again.text
    missing = stand.client.get("/waivers/none")
    assert (missing.status_code, missing.headers["content-type"].partition(";")[0]) == (404, "text/html")


def blocked(stand: Stand, folder: Path) -> str:
    """A version that lost its math, under a policy that grants waivers; the evaluation's key."""
    file = folder / "granting.yaml"
    file.write_text((SHIPPED / "default.yaml").read_text() + "\nwaivers: {max_days: 30}\n")
    stand.door = replace(stand.door, policies=load_policies(file))
    stand.client.app.state.door = stand.door
    lost = Measurement(name=Name.RETENTION, capability="math", estimate=an_estimate(-0.6, 0.1))
    others = [each for each in an_evidence().measurements if (each.name, each.capability) != (lost.name, "math")]
    evidence = an_evidence(measurements=(*others, lost))
    version = a_version(name="<b>chat & co")
    verdict = judge(stand.door.policies.policies[0], evidence, subject=version.identity, now=int(stand.clock()))
    changes = {name: getattr(verdict, name) for name in ("outcome", "reason", "findings", "candidate_digest")}
    return judged(stand, version, evidence=evidence, **changes)


def test_a_waiver_is_asked_for_from_the_evaluation_that_a_rule_holds_back(
    stand: Stand, tokens: Tokens, tmp_path: Path
) -> None:
    key = blocked(stand, tmp_path)
    (way,) = re.findall(r'href="(/waivers/ask[^"]*)"', stand.client.get(f"/evaluations/{key}").text)
    address = way.replace("&amp;", "&")
    given = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert given == {"name": "<b>chat & co", "version": "3", "rule": "capabilities-kept"}

    form = stand.client.get(address, headers=tokens.header(Role.SUBMITTER)).text
    assert 'name="name" value="&lt;b&gt;chat &amp; co"' in form
    assert 'name="rule" value="capabilities-kept"' in form

    answer = act(
        stand, tokens, Role.SUBMITTER, "/waivers", **given, owner="nlp", reason="why", ticket="RISK-7", days="10"
    )
    assert answer.status_code == 303
    (made,) = stand.ledger.waivers()
    assert answer.headers["location"] == f"/waivers/{made.waiver.id}"
    assert (made.waiver.requested_by, made.waiver.rule) == ("submitter", "capabilities-kept")
    assert f'href="/evaluations/{key}"' in stand.client.get(answer.headers["location"]).text
    assert f'href="/waivers/{made.waiver.id}"' in stand.client.get(f"/evaluations/{key}").text


def test_a_waiver_that_may_not_be_asked_for_leaves_the_form_as_it_was_filled_in(
    stand: Stand, tokens: Tokens, tmp_path: Path
) -> None:
    blocked(stand, tmp_path)
    given = {"name": "<b>chat & co", "version": "3", "owner": "nlp", "reason": "<i>why", "ticket": "RISK-7"}
    for changes, said in (
        ({"rule": "capabilities-kept", "days": "60"}, "expected at most 30 days"),
        ({"rule": "still-a-fine-tune", "days": "7"}, "to hold this version back by a number"),
        ({"rule": "capabilities-kept", "days": "soon"}, "found at days"),
        ({"rule": "capabilities-kept", "days": "7", "name": "other"}, "expected an evaluation of version 3"),
    ):
        answer = act(stand, tokens, Role.SUBMITTER, "/waivers", **(given | changes))
        assert answer.status_code in (400, 404)
        assert said in answer.text
        assert "&lt;i&gt;why</textarea>" in answer.text
    assert stand.ledger.waivers() == []


def test_a_reader_is_told_who_may_ask_and_cannot(stand: Stand, tokens: Tokens) -> None:
    assert "needs somebody signed in with a token of the role" in stand.client.get("/waivers/ask").text
    assert act(stand, tokens, Role.READER, "/waivers", name="my-llm").status_code == 403
