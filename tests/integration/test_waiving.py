"""An exception from its request to its end: API and commands, a worker's signature, MLflow's own guard, a clock moved on."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from api_stand import served
from builders import a_checkpoint, an_estimate, an_evidence
from fastapi.testclient import TestClient
from guarded_stand import GuardedStand
from mlflow.exceptions import MlflowException
from prometheus_client.utils import floatToGoString
from review_office import an_api
from typer.testing import CliRunner

from gate.adapters.signing import DsseSigner, Verifier
from gate.cli import app as command_line
from gate.domain.access import Role
from gate.domain.attestation import PAYLOAD_TYPE, read_summary, seconds
from gate.domain.checkpoint import FileDigest, ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Measurement, Name
from gate.domain.jobs import glass_key, inspect_key, judge_key, rejudge_key
from gate.domain.records import Claim
from gate.domain.waiver import WAIVER_TYPE, read_waiver, waiver_document
from gate.ports import Ledger
from gate.settings import Settings, settings
from tasks import glass as glass_job
from tasks import judge as judge_job
from tasks import rejudge
from tasks.running import JobContext

DAY = 86_400
TERMS = "\nwaivers: {max_days: 30}\nbreak_glass: {max_hours: 24, review_within_hours: 48}\non_blocked: {notify: [on-call]}\n"
NAMES = {"ana": Role.REVIEWER, "bo": Role.REVIEWER, "sub": Role.SUBMITTER, "read": Role.READER}
RULE = "capabilities-kept"


class Committee:
    """A guarded MLflow whose policy grants waivers, the gate's API with people who have tokens, and a worker's hand."""

    def __init__(self, folder: Path) -> None:
        self.stand = GuardedStand(folder, also=TERMS)
        self.app, self.tokens = an_api(self.stand, folder, NAMES)
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.settings = Settings(
            signing_key_file=self.stand.private,
            trusted_keys_file=self.stand.public,
            policies=self.stand.policy_file,
            state_dir=folder,
        )

    def blocked(self, name: str, digit: str) -> tuple[ModelVersion, str]:
        """A version that lost its math, judged and written to the registry, and its evaluation's key."""
        stand = self.stand
        stand.client.create_registered_model(name)
        stand.client.create_model_version(name, f"s3://bucket/{name}")
        version, now, policy = stand.registry.version(name, "1"), stand.clock(), stand.policies.policies[0]
        request = EvaluationRequest.of(version, policy.name, policy.digest)
        measurements = tuple(
            Measurement(name=Name.RETENTION, capability="math", estimate=an_estimate(-0.6, 0.1))
            if (each.name, each.capability) == (Name.RETENTION, "math")
            else each
            for each in an_evidence().measurements
        )
        files = (FileDigest(path="model.safetensors", sha256=digit * 64, size=10),)
        evidence = an_evidence(key=request.key, measurements=measurements, candidate=a_checkpoint(files=files))
        stand.ledger.request_evaluation(request, now)
        inspect = stand.ledger.claim(inspect_key(request.key), "w", 60, now)
        assert inspect is not None
        stand.ledger.save_evidence(inspect, evidence, now)
        stand.ledger.note(request.key, now, evidence_key=evidence.key)
        stand.ledger.finish(inspect, now)
        assert self.worked(judge_key(request.key), judge_job.run) == "blocked"
        return version, request.key

    def worked(self, key: str, run: Callable[[JobContext], Any]) -> str:
        """What a worker does with a job, and then the dispatcher, by the clock of the stand; the outcome."""
        claim = self.stand.ledger.claim(key, "w", 60, self.stand.clock())
        assert claim is not None
        done = run(AtHour(claim, self.stand.ledger, self.settings, self.stand.clock))
        self.stand.ledger.finish(claim, self.stand.clock(), result=done.result)
        self.stand.sweep()
        return str(done.result["outcome"])

    def post(self, who: str, place: str = "", at: str = "/v1/waivers", **body: object) -> httpx.Response:
        return self.client.post(f"{at}{place}", json=body, headers=self.header(who))

    def header(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def broke(self, registered: ModelVersion, who: str = "ana", **changes: object) -> httpx.Response:
        given = {
            "name": registered.name,
            "version": "1",
            "reason": "the old one is down",
            "ticket": "INC-1",
            "hours": 2,
        }
        return self.post(who, at="/v1/break-glass", **(given | changes))

    def let_through(self, version: ModelVersion, key: str, who: str = "ana") -> Mapping[str, Any]:
        """A broken glass whose approval is signed and written to the registry."""
        glass = self.broke(version, who).json()
        assert self.worked(glass_key(key, glass["id"], "broken"), glass_job.run) == "approved"
        return dict(glass)

    def reviewed(self, who: str, glass: Mapping[str, Any], decision: str) -> httpx.Response:
        given = {
            "evaluation": glass["evaluation"],
            "verdict": glass["digest"],
            "reason": "why not",
            "decision": decision,
        }
        return self.post(who, at="/v1/reviews", **given)

    def told(self, part: str) -> int:
        """How many messages to channels have that in their title."""
        rows = self.stand.ledger._database.read(
            lambda c: c.execute(sa.text("SELECT payload FROM outbox WHERE kind = 'notify'")).scalars().all()
        )
        return sum(part in json.loads(row)["title"] for row in rows)

    def asked(self, registered: ModelVersion, who: str = "sub", **changes: object) -> httpx.Response:
        given = {"name": registered.name, "version": "1", "rule": RULE, "owner": "nlp", "ticket": "RISK-7", "days": 10}
        return self.post(who, **({"reason": "no math is asked of it"} | given | changes))

    def granted(self, version: ModelVersion, key: str) -> str:
        """A waiver that was asked for, approved and judged with; its id."""
        waiver = str(self.asked(version).json()["id"])
        assert self.post("ana", f"/{waiver}/approvals").json()["state"] == "granted"
        assert self.worked(rejudge_key(key, waiver, "granted"), rejudge.run) == "approved"
        return waiver

    def promote(self, version: ModelVersion) -> str | None:
        """The refusal of MLflow itself; ``None`` where it let the champion be set."""
        try:
            self.stand.client.set_registered_model_alias(version.name, "champion", version.version)
        except MlflowException as error:
            return str(error)
        return None


class AtHour(JobContext):
    """A job by a clock of the test's."""

    def __init__(self, claim: Claim, ledger: Ledger, settings: Settings, clock: Callable[[], float]) -> None:
        super().__init__(claim, ledger, settings)
        self.now = clock


@pytest.fixture(scope="module")
def committee(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Committee]:
    made = Committee(tmp_path_factory.mktemp("committee"))
    yield made
    made.stand.close()


def test_a_waiver_opens_the_guard_until_it_ends_and_then_what_rested_on_it_is_taken_back(committee: Committee) -> None:
    stand = committee.stand
    version, key = committee.blocked("excepted", "3")
    assert "blocked" in (committee.promote(version) or "")
    before = stand.clock()
    waiver = committee.granted(version, key)

    assert committee.promote(version) is None
    assert stand.leads(version.name) == {"approved": "1", "champion": "1"}
    tags = stand.registry.version(version.name, "1").tags
    assert "Approved by waiver" in tags["gate.reason"]
    verifier = Verifier.from_file(stand.public)
    summary = read_summary(verifier.open(json.loads(tags["gate.vsa"]), PAYLOAD_TYPE))
    shown = committee.client.get(f"/v1/waivers/{waiver}", headers=committee.header("read"))
    ends = seconds(shown.json()["expires_at"])
    assert summary.expires_at == ends == int(before + 10 * DAY)
    signed = read_waiver(verifier.open(shown.json()["envelope"], WAIVER_TYPE))
    assert (signed.id, signed.approvers) == (waiver, ("ana",))
    scraped = committee.client.get("/metrics").text
    assert f"gate_waiver_expiry_timestamp_seconds {floatToGoString(ends)}" in scraped
    assert 'gate_waivers{state="granted"} 1.0' in scraped

    stand.clock.now = ends + 1.0
    assert summary.refusal(version.identity, int(stand.clock())) is not None
    stand.sweep()
    assert stand.ledger.waiver(waiver).state == "expired"
    assert committee.worked(rejudge_key(key, waiver, "expired"), rejudge.run) == "blocked"
    assert "blocked" in (committee.promote(version) or "")
    assert "approved" not in stand.leads(version.name)
    assert stand.registry.version(version.name, "1").tags["gate.verdict"] == "blocked"
    assert stand.audited(waiver) == ["waiver requested", "waiver granted", "waiver expired"]


def test_a_revoked_waiver_counts_no_more_for_any_version_of_those_bytes(committee: Committee) -> None:
    version, key = committee.blocked("withdrawn", "4")
    waiver = committee.granted(version, key)
    assert committee.promote(version) is None
    assert committee.post("bo", f"/{waiver}/revocation", reason="the ticket was closed").json()["state"] == "revoked"
    assert committee.worked(rejudge_key(key, waiver, "revoked"), rejudge.run) == "blocked"
    assert "blocked" in (committee.promote(version) or "")
    assert committee.post("bo", f"/{waiver}/approvals").status_code == 400


def test_the_same_bytes_under_another_name_are_judged_with_the_waiver_from_the_first(committee: Committee) -> None:
    version, key = committee.blocked("first name", "5")
    committee.granted(version, key)
    with pytest.raises(AssertionError, match="approved"):
        committee.blocked("second name", "5")


def test_a_document_that_no_trusted_key_signed_is_no_waiver(committee: Committee) -> None:
    version, key = committee.blocked("forged", "6")
    waiver = str(committee.asked(version).json()["id"])
    committee.post("ana", f"/{waiver}/approvals")
    stranger = DsseSigner(committee.stand.stranger)
    document = stranger.sign(waiver_document(committee.stand.ledger.waiver(waiver).waiver), WAIVER_TYPE)
    claim = committee.stand.ledger.claim(rejudge_key(key, waiver, "granted"), "w", 60, committee.stand.clock())
    assert claim is not None
    committee.stand.ledger.sign_waiver(claim, waiver, document)
    done = rejudge.run(AtHour(claim, committee.stand.ledger, committee.settings, committee.stand.clock))
    assert done.result == {"outcome": "blocked"}


@pytest.mark.parametrize(
    ("who", "changes", "status", "told"),
    [
        ("read", {}, 403, "submitter or more"),
        ("sub", {"days": 31}, 400, "at most 30 days"),
        ("sub", {"days": 0}, 422, "days"),
        ("sub", {"rule": "unsafe_file"}, 400, "defects of the files cannot be waived"),
        ("sub", {"rule": "still-a-fine-tune"}, 400, "found: pass"),
        ("sub", {"reason": " "}, 422, "reason"),
        ("sub", {"version": "9"}, 404, "none"),
    ],
    ids=["reader", "too-long", "no-time", "defect", "passing", "no-reason", "no-version"],
)
def test_what_is_no_request_is_refused(
    committee: Committee, who: str, changes: dict[str, object], status: int, told: str, request: pytest.FixtureRequest
) -> None:
    version, _ = committee.blocked(f"refused {request.node.callspec.id}", "7")
    reply = committee.asked(version, who, **changes)
    assert (reply.status_code, told in reply.text) == (status, True), reply.text


def test_who_asked_cannot_grant_alone_and_a_submitter_not_at_all(committee: Committee) -> None:
    version, _ = committee.blocked("alone", "8")
    waiver = committee.asked(version, "ana").json()["id"]
    assert committee.post("sub", f"/{waiver}/approvals").status_code == 403
    alone = committee.post("ana", f"/{waiver}/approvals").json()
    assert (alone["state"], alone["approvals_missing"]) == ("requested", 1)
    assert committee.post("bo", f"/{waiver}/approvals").json()["state"] == "granted"


def test_a_broken_glass_opens_the_guard_for_hours_tells_everybody_and_then_what_was_judged_counts_again(
    committee: Committee,
) -> None:
    stand = committee.stand
    version, key = committee.blocked("emergency", "a")
    judged = stand.ledger.verdict(key)
    before = stand.registry.version(version.name, "1").tags["gate.vsa"]
    glass = committee.let_through(version, key)

    assert committee.promote(version) is None
    tags = stand.registry.version(version.name, "1").tags
    assert tags["gate.reason"].startswith("Approved by breaking the glass until")
    summary = read_summary(Verifier.from_file(stand.public).open(json.loads(tags["gate.vsa"]), PAYLOAD_TYPE))
    assert (summary.broken_by, summary.expires_at) == ("ana", seconds(glass["expires_at"]))
    scraped = committee.client.get("/metrics").text
    assert 'gate_break_glass{state="in_force"} 1.0' in scraped
    assert committee.told("The glass was broken over models:/emergency/1") == 1
    assert "it is approved until" in committee.broke(version, "bo").text

    stand.clock.now = summary.expires_at + 1.0
    assert summary.refusal(version.identity, int(stand.clock())) is not None
    stand.sweep(2)
    assert stand.ledger.verdict(key) == judged
    assert stand.registry.version(version.name, "1").tags["gate.vsa"] == before
    assert stand.leads(version.name) == {}
    assert "blocked" in (committee.promote(version) or "")
    assert "waits for its review" in committee.broke(version).text
    stand.clock.now = seconds(glass["review_by"]) + 700.0
    stand.sweep()
    assert 'gate_break_glass{state="overdue"} 1.0' in committee.client.get("/metrics").text
    assert committee.told("Nobody reviewed the breaking of the glass over models:/emergency/1") == 1

    inbox = committee.client.get("/v1/reviews", headers=committee.header("read")).json()["reviews"]
    assert [each["break_glass"]["id"] for each in inbox if each["verdict"] == glass["digest"]] == [glass["id"]]
    page = committee.client.get(f"/evaluations/{key}", headers=committee.header("bo")).text
    assert "<b>The glass was broken</b> by ana: the old one is down (INC-1)" in page
    assert f'name="verdict" value="{glass["digest"]}"' in page
    assert "found ana who broke the glass" in committee.reviewed("ana", glass, "approve").text
    assert committee.reviewed("bo", glass, "approve").status_code == 202
    assert "found it reviewed by bo" in committee.reviewed("bo", glass, "reject").text
    assert 'gate_break_glass{state="overdue"} 0.0' in committee.client.get("/metrics").text
    assert [each for each in stand.audited(glass["digest"]) if each != "verdict"] == [
        "glass broken",
        "glass ended",
        "glass reviewed",
    ]
    assert stand.ledger.audit_break() is None
    assert committee.broke(version).status_code == 202


def test_a_broken_glass_that_is_rejected_afterwards_is_revoked_for_good_and_the_alias_goes_back(
    committee: Committee,
) -> None:
    stand = committee.stand
    version, key = committee.blocked("regretted", "b")
    good = stand.client.create_model_version(version.name, "s3://bucket/good")
    stand.approve(stand.registry.version(version.name, str(good.version)))
    stand.client.set_registered_model_alias(version.name, "champion", good.version)
    stand.sweep()
    glass = committee.let_through(version, key)
    assert committee.promote(version) is None
    stand.sweep()
    assert stand.leads(version.name)["champion"] == "1"

    assert committee.reviewed("bo", glass, "reject").json()["evaluation"] == key
    assert committee.worked(glass_key(key, glass["id"], "rejected"), glass_job.run) == "revoked"
    stand.sweep(2)
    assert stand.leads(version.name)["champion"] == str(good.version)
    assert "revoked" in (committee.promote(version) or "")
    assert "a revocation is for good" in committee.broke(version).text


def test_what_breaks_no_glass_is_refused(committee: Committee) -> None:
    version, key = committee.blocked("whole", "c")
    for who, changes, status, told in (
        ("sub", {}, 403, "reviewer or more"),
        ("ana", {"hours": 25}, 400, "at most 24 hours"),
        ("ana", {"reason": " "}, 422, "reason"),
        ("ana", {"ticket": ""}, 422, "ticket"),
        ("ana", {"version": "9"}, 404, "none"),
    ):
        reply = committee.broke(version, who, **changes)
        assert (reply.status_code, told in reply.text) == (status, True), reply.text
    assert committee.stand.ledger.glasses(key) == []
    assert committee.promote(version) is not None


def test_the_command_line_asks_approves_shows_lists_and_ends(
    committee: Committee, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, key = committee.blocked("by command", "9")
    runner = CliRunner()

    def told(who: str, *arguments: str) -> str:
        monkeypatch.setenv("GATE_API_TOKEN", committee.tokens[who])
        settings.cache_clear()
        ended = runner.invoke(command_line, arguments)
        assert ended.exit_code == 0, ended.output
        return ended.output

    with served(committee) as url:
        monkeypatch.setenv("GATE_PUBLIC_URL", url)
        terms = ("--rule", RULE, "--owner", "nlp", "--reason", "why", "--ticket", "RISK-9", "--days", "2")
        waiver = json.loads(told("sub", "waiver", "request", "by command", "1", *terms, "--json"))["id"]
        assert f"waiver {waiver} is granted" in told("ana", "waiver", "approve", waiver)
        assert "RISK-9; nlp answers for it" in told("read", "waiver", "show", waiver)
        assert f"{waiver}\tgranted\t" in told("read", "waiver", "ls")
        assert "is revoked" in told("bo", "waiver", "revoke", waiver, "--reason", "no longer needed")
        why = ("--reason", "the old one is down", "--ticket", "INC-9", "--for", "90m")
        broke = told("ana", "break-glass", version.uri, *why)
        assert "is approved against its verdict until" in broke
        assert "INC-9" in told("read", "review", "show", "by command", "1")
        assert f"{version.uri}\tthe glass was broken by ana" in told("read", "review", "ls")
        told("bo", "review", "approve", "by command", "1", "--reason", "it was")
        assert "approve by bo" in told("read", "review", "show", "by command", "1")
    assert [each.review is not None for each in committee.stand.ledger.glasses(key)] == [True]
    settings.cache_clear()
