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
from gate.domain.evidence import PairedOutcomes, extended_evidence_key
from gate.domain.jobs import extend_key, extended_judge_key
from gate.domain.verdict import Outcome
from gate.settings import settings
from tasks import rejudge
from tasks.running import JobContext

RESERVE = (PairedOutcomes(capability="math", outcomes=(1.0,) * 8, of=48),)


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
    assert office.stand.ledger.reviews(key) == []
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
    with served(office) as url:
        for name, value in (("GATE_PUBLIC_URL", url), ("GATE_API_TOKEN", office.tokens["bo"])):
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        runner = CliRunner()
        listed = runner.invoke(command_line, ["review", "ls"])
        assert f"{version.uri}\tMath" in listed.output
        shown = runner.invoke(command_line, ["review", "show", "by command", "1"])
        assert f"{version.uri} needs review: Math" in shown.output
        assert "A reviewer who did not submit it can decide." in shown.output
        given = runner.invoke(command_line, ["review", "approve", "by command", "1", "--reason", "checked by hand"])
        assert given.exit_code == 0
        assert "is approved; the registry follows" in given.output
        shown = runner.invoke(command_line, ["review", "show", "by command", "1"])
        assert "approved by bo: checked by hand" in shown.output
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
    assert (office.stand.ledger.reviews(key) != []) == (status == 303)
    # The session reads elsewhere, and acts nowhere else.
    assert browser.post("/v1/reviews", json={}, headers=headers).status_code == 401


def test_more_samples_are_not_asked_for_by_anybody_nor_where_there_are_none(office: Office) -> None:
    _, key = office.doubtful("kept-back", kept=RESERVE)
    for who, changes, status, told in (
        ("sub", {}, 403, "expected a token with the role reviewer or more"),
        ("ana", {"reason": ""}, 422, "reason"),
        ("ana", {"items": 0}, 422, "items"),
        ("ana", {"decision": "approve", "items": 8}, 422, "more_samples alone"),
        ("ana", {"verdict": "0" * 64}, 400, "judged again since"),
    ):
        reply = office.asked(key, who, **{"decision": "more_samples"} | changes)
        assert (reply.status_code, told in reply.text) == (status, True), reply.text
    _, spent = office.doubtful("all-compared")
    reply = office.asked(spent, decision="more_samples")
    assert (reply.status_code, "found none: no items were kept back" in reply.text) == (400, True), reply.text
    assert office.stand.ledger.reviews(key) == office.stand.ledger.reviews(spent) == []


def test_who_asked_for_more_samples_is_told_everywhere_until_the_version_is_judged_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, key = office.doubtful("more samples", kept=RESERVE)
    ledger, clock = office.stand.ledger, office.stand.clock
    page = TestClient(office.app, headers=office.header("ana"))
    assert 'name="decision" value="more_samples"' in page.get(f"/evaluations/{key}").text
    assert "40 items of math" in page.get(f"/evaluations/{key}").text

    with served(office) as url:
        for name, value in (("GATE_PUBLIC_URL", url), ("GATE_API_TOKEN", office.tokens["bo"])):
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        runner = CliRunner()
        before = runner.invoke(command_line, ["review", "show", "more samples", "1"]).output
        assert "More samples can be asked for: 40 items of math." in before
        stated = ["--reason", "eight are few", "--items", "16"]
        given = runner.invoke(command_line, ["review", "ask", "more samples", "1", *stated])
        assert (given.exit_code, "is compared further with its base" in given.output) == (0, True), given.output
        shown = runner.invoke(command_line, ["review", "show", "more samples", "1"]).output
        assert "More samples are being compared, as bo asked" in shown
        assert "more samples asked for by bo: eight are few" in shown
    settings.cache_clear()
    assert "bo asked for more samples: eight are few" in page.get(f"/evaluations/{key}").text
    assert office.promote(version) is not None
    assert "found it decided by bo" in office.asked(key).text

    asked_of = ledger.verdict(key)
    assert asked_of is not None
    digest = asked_of[0].digest
    claim = ledger.claim(extend_key(key, digest), "w", 60, clock())
    assert claim is not None
    ledger.fail(claim, clock(), error="no memory")
    again = ledger.claim(extended_judge_key(key, digest), "w", 60, clock())
    assert again is not None
    assert again.payload["extended"] == extended_evidence_key(asked_of[0].evidence_key, digest)
    done = rejudge.run(JobContext(again, ledger, office.settings))
    ledger.finish(again, clock(), result=done.result)
    office.stand.sweep()

    tags = office.stand.registry.version(version.name, "1").tags
    assert tags["gate.verdict"] == "needs_review"
    # The run in the registry shows the verdict that counts, although its outcome is that of the one before.
    run = office.stand.client.get_run(tags["gate.run_id"])
    assert "could not be compared (no memory), as bo asked" in run.data.tags["mlflow.note.content"]
    assert office.asked(key).status_code == 202
    assert office.work(key) == "approved"
    kept = ledger.verdict(key)
    assert kept is not None
    assert [each.reviewer for each in kept[0].samples_asked] == ["bo"]
    assert office.promote(version) is None
