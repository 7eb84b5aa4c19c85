"""A person decides what the numbers could not: by API, page and command; signed by a worker; obeyed by MLflow itself."""

from collections.abc import Iterator

import pytest
from api_stand import served
from fastapi.testclient import TestClient
from review_office import Office
from typer.testing import CliRunner

from gate.adapters.revoking import Revoker
from gate.adapters.signing import Verifier
from gate.cli import app as command_line
from gate.domain.attestation import PAYLOAD_TYPE, read_summary
from gate.domain.verdict import Outcome
from gate.settings import settings


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    made = Office(tmp_path_factory.mktemp("office"))
    yield made
    made.stand.close()


def test_an_approved_doubt_is_signed_written_and_obeyed(office: Office) -> None:
    version, key = office.doubtful("approved-doubt")
    assert "needs review by policy default" in (office.promote(version) or "")

    reply = office.asked(key)
    assert (reply.status_code, reply.json()["decided_by"]) == (202, "ana")
    # Nothing is approved before a worker has signed it.
    assert office.promote(version) is not None
    assert office.work(key) == "approved"

    assert office.promote(version) is None
    assert office.stand.leads(version.name) == {"approved": "1", "champion": "1"}
    tags = office.stand.registry.version(version.name, "1").tags
    assert tags["gate.verdict"] == "approved"
    assert "on review by ana" in tags["gate.reason"]
    payload = Verifier.from_file(office.stand.public).open(tags["gate.vsa"], PAYLOAD_TYPE)
    assert read_summary(payload).refusal(version.identity, int(office.stand.clock())) is None
    assert office.stand.audited(version.identity)[-1:] != []


def test_a_rejected_doubt_stays_refused_with_the_reason(office: Office) -> None:
    version, key = office.doubtful("rejected-doubt")
    assert office.asked(key, decision="reject", reason="it makes sums up").status_code == 202
    assert office.work(key) == "blocked"
    assert "Rejected on review by ana: it makes sums up" in (office.promote(version) or "")


def test_the_first_decision_stands(office: Office) -> None:
    _, key = office.doubtful("two-minds")
    assert office.asked(key, decision="reject").status_code == 202
    second = office.asked(key, who="bo")
    assert (second.status_code, "found it decided by ana" in second.text) == (400, True)
    assert office.asked(key, decision="reject").status_code == 202
    office.work(key)
    kept = office.stand.ledger.verdict(key)
    assert kept is not None
    assert kept[0].outcome is Outcome.BLOCKED
    assert office.asked(key, who="bo").status_code == 400


@pytest.mark.parametrize(
    ("who", "changes", "status", "told"),
    [
        ("sub", {}, 403, "expected a token with the role reviewer or more"),
        ("ana", {"verdict": "0" * 64}, 400, "judged again since"),
        ("ana", {"decision": "wave through"}, 422, "decision"),
        ("ana", {"reason": ""}, 422, "reason"),
        ("ana", {"evaluation": "nobody's"}, 404, "none to review"),
    ],
    ids=["submitter", "stale", "unknown-word", "no-reason", "unknown"],
)
def test_what_is_not_a_decision_is_refused(
    office: Office, who: str, changes: dict[str, str], status: int, told: str, request: pytest.FixtureRequest
) -> None:
    version, key = office.doubtful(f"refused-{request.node.callspec.id}")
    reply = office.asked(key, who, **changes)
    assert (reply.status_code, told in reply.text) == (status, True), reply.text
    assert office.stand.ledger.review(key) is None
    assert office.promote(version) is not None


def test_nobody_approves_what_they_submitted_even_once_the_tag_is_gone(office: Office) -> None:
    version, key = office.doubtful("own-work", submitter="ana")
    office.stand.client.delete_model_version_tag(version.name, "1", "submitter")
    reply = office.asked(key)
    assert (reply.status_code, "found ana for both" in reply.text) == (400, True)
    assert office.asked(key, who="bo").status_code == 202


def test_a_revoked_version_is_not_approved_by_a_review_asked_for_before(office: Office) -> None:
    version, key = office.doubtful("revoked-meanwhile")
    assert office.asked(key).status_code == 202
    Revoker(office.stand.ledger, office.stand.signer, office.stand.clock).void(version, "bytes changed", "op")
    assert "judged again since" in office.work(key)
    assert "revoked" in (office.promote(version) or "")


def test_the_inbox_lists_the_longest_waiting_first_and_the_command_line_decides(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, key = office.doubtful("by command")
    with served(office) as url:  # type: ignore[arg-type]
        for name, value in (("GATE_PUBLIC_URL", url), ("GATE_API_TOKEN", office.tokens["bo"])):
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        runner = CliRunner()
        listed = runner.invoke(command_line, ["review", "ls"])
        assert f"{version.uri}\tMath" in listed.output
        given = runner.invoke(command_line, ["review", "approve", "by command", "1", "--reason", "checked by hand"])
        assert given.exit_code == 0
        assert "is approved; the registry follows" in given.output
    settings.cache_clear()
    assert office.work(key) == "approved"
    assert office.promote(version) is None
    waiting = office.client.get("/v1/reviews", headers=office.header("sub")).json()["reviews"]
    assert key not in [each["evaluation"] for each in waiting]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Sec-Fetch-Site": "same-site"}, 401),
        ({"Origin": "http://testserver"}, 303),
        ({"Origin": "http://evil.example"}, 401),
        ({}, 401),
    ],
    ids=["own-page", "other-site", "sibling-site", "own-origin", "other-origin", "unsaid"],
)
def test_a_session_decides_by_the_gates_own_form_alone(
    office: Office, headers: dict[str, str], status: int, request: pytest.FixtureRequest
) -> None:
    _, key = office.doubtful(f"form-{request.node.callspec.id}")
    browser = TestClient(office.app, raise_server_exceptions=False, follow_redirects=False)
    assert browser.post("/sign-in", data={"token": office.tokens["ana"], "to": "/"}).status_code == 303
    page = browser.get(f"/evaluations/{key}").text
    assert 'name="decision" value="approve"' in page
    digest = page.partition('name="verdict" value="')[2][:64]
    form = {"verdict": digest, "decision": "reject", "reason": "no"}
    reply = browser.post(f"/evaluations/{key}/review", data=form, headers=headers)
    assert reply.status_code == status, reply.text
    assert (office.stand.ledger.review(key) is not None) == (status == 303)
    # The session reads elsewhere, and acts nowhere else.
    assert browser.post("/v1/reviews", json={}, headers=headers).status_code == 401
