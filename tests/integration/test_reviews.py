"""A person decides what the numbers could not: by API, page and command; signed by a worker; obeyed by MLflow itself."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_stand import served
from builders import an_estimate, an_evidence
from deliveries import CAPTURE_SECRET
from fastapi.testclient import TestClient
from guarded_stand import GuardedStand
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from gate.adapters.metrics import Metrics
from gate.adapters.signing import Verifier
from gate.adapters.token_file import TokenFile
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.cli import app as command_line
from gate.domain.access import Role, made_token
from gate.domain.attestation import PAYLOAD_TYPE, read_summary
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Measurement, Name
from gate.domain.jobs import inspect_key, judge_key, review_key
from gate.domain.judging import judge
from gate.domain.verdict import Outcome
from gate.settings import Settings, settings
from tasks import review
from tasks.judge import signed
from tasks.running import JobContext

NAMES = {"ana": Role.REVIEWER, "bo": Role.REVIEWER, "sub": Role.SUBMITTER}
NARROW = ("math", "safety")


class Office:
    """A guarded MLflow, the gate's API with people who have tokens, and a worker's hand."""

    def __init__(self, folder: Path) -> None:
        self.stand = GuardedStand(folder)
        made = {name: made_token(name, role.word) for name, role in NAMES.items()}
        (folder / "tokens.yaml").write_text("".join(f"{line}\n" for _, line in made.values()))
        self.tokens = {name: token for name, (token, _) in made.items()}
        self.door = Door(
            ledger=self.stand.ledger,
            registry=self.stand.registry,
            policies=self.stand.policies,
            secrets=(CAPTURE_SECRET,),
            clock=self.stand.clock,
            metrics=Metrics(),
            broker=lambda: None,
        )
        access = Access(TokenFile(folder / "tokens.yaml"), (CAPTURE_SECRET,), clock=self.stand.clock)
        self.app = create_app(self.door, access)
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.settings = Settings(signing_key_file=self.stand.private, policies=self.stand.policy_file, state_dir=folder)

    def doubtful(self, name: str, **tags: str) -> tuple[ModelVersion, str]:
        """A version whose math could not be told from a loss, judged and written to the registry; its evaluation."""
        stand = self.stand
        stand.client.create_registered_model(name)
        stand.client.create_model_version(name, f"s3://bucket/{name}", tags=tags)
        version, now = stand.registry.version(name, "1"), stand.clock()
        policy = stand.policies.policies[0]
        request = EvaluationRequest.of(version, policy.name, policy.digest)
        measurements = tuple(
            Measurement(name=Name.RETENTION, capability=each.capability, estimate=an_estimate(-0.05, 0.2))
            if (each.name, each.capability) == (Name.RETENTION, "math")
            else each
            for each in an_evidence().measurements
        )
        evidence = an_evidence(key=request.key, measurements=measurements)
        verdict = judge(policy, evidence, subject=version.identity, now=int(now))
        assert verdict.outcome is Outcome.NEEDS_REVIEW
        stand.ledger.request_evaluation(request, now)
        inspect = stand.ledger.claim(inspect_key(request.key), "w", 60, now)
        stand.ledger.save_evidence(inspect, evidence, now)
        stand.ledger.note(request.key, now, evidence_key=evidence.key)
        stand.ledger.finish(inspect, now)
        claim = stand.ledger.claim(judge_key(request.key), "w", 60, now)
        stand.ledger.save_verdict(claim, request.key, verdict, signed(stand.signer, evidence, verdict), now)
        stand.ledger.finish(claim, now)
        stand.sweep()
        return version, request.key

    def asked(self, key: str, who: str = "ana", **changes: str) -> httpx.Response:
        kept = self.stand.ledger.verdict(key)
        assert kept is not None
        body = {"evaluation": key, "verdict": kept[0].digest, "decision": "approve", "reason": "read the answers"}
        return self.client.post("/v1/reviews", json=body | changes, headers=self.header(who))

    def header(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def work(self, key: str) -> str:
        """What a worker does when the doorbell rings, and then the dispatcher, by the clock of the stand; how it ended."""
        claim = self.stand.ledger.claim(review_key(key), "w", 60, self.stand.clock())
        assert claim is not None
        try:
            done = review.run(JobContext(claim, self.stand.ledger, self.settings))
        except InvalidInput as error:
            self.stand.ledger.fail(claim, self.stand.clock(), error=str(error))
            ended = str(error)
        else:
            self.stand.ledger.finish(claim, self.stand.clock(), result=done.result)
            ended = str(done.result["outcome"])
        self.stand.sweep()
        return ended

    def promote(self, version: ModelVersion) -> str | None:
        """The refusal of MLflow itself; ``None`` where it let the champion be set."""
        try:
            self.stand.client.set_registered_model_alias(version.name, "champion", version.version)
        except MlflowException as error:
            return str(error)
        return None


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
    from gate.adapters.revoking import Revoker

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
