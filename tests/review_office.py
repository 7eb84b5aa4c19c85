"""A guarded MLflow with the gate's API before it, people who have tokens, and a worker's hand: where reviews are made."""

from collections.abc import Mapping
from pathlib import Path

import httpx
from builders import an_estimate, an_evidence
from deliveries import CAPTURE_SECRET
from fastapi import FastAPI
from fastapi.testclient import TestClient
from guarded_stand import GuardedStand
from mlflow.exceptions import MlflowException

from gate.adapters.metrics import Metrics
from gate.adapters.token_file import TokenFile
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.domain.access import Role, made_token
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import Measurement, Name, PairedOutcomes
from gate.domain.jobs import inspect_key, judge_key, review_key
from gate.domain.judging import judge
from gate.domain.verdict import Outcome
from gate.settings import Settings
from tasks import review
from tasks.judge import signed
from tasks.running import JobContext

NAMES = {"ana": Role.REVIEWER, "bo": Role.REVIEWER, "sub": Role.SUBMITTER}


def an_api(stand: GuardedStand, folder: Path, names: Mapping[str, Role]) -> tuple[FastAPI, dict[str, str]]:
    """The gate's API over what stands there, by the same clock, and a token for each of these people."""
    made = {name: made_token(name, role.word) for name, role in names.items()}
    (folder / "tokens.yaml").write_text("".join(f"{line}\n" for _, line in made.values()))
    door = Door(
        ledger=stand.ledger,
        registry=stand.registry,
        policies=stand.policies,
        secrets=(CAPTURE_SECRET,),
        clock=stand.clock,
        metrics=Metrics(),
        broker=lambda: None,
    )
    access = Access(TokenFile(folder / "tokens.yaml"), (CAPTURE_SECRET,), clock=stand.clock)
    return create_app(door, access), {name: token for name, (token, _) in made.items()}


class Office:
    """A guarded MLflow, the gate's API with people who have tokens, and a worker's hand."""

    def __init__(self, folder: Path) -> None:
        self.stand = GuardedStand(folder)
        self.app, self.tokens = an_api(self.stand, folder, NAMES)
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.settings = Settings(signing_key_file=self.stand.private, policies=self.stand.policy_file, state_dir=folder)

    def doubtful(self, name: str, *, kept: tuple[PairedOutcomes, ...] = (), **tags: str) -> tuple[ModelVersion, str]:
        """A version whose math could not be told from a loss, judged and written to the registry; its evaluation. ``kept``
        is what there is to go on with."""
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
        evidence = an_evidence(key=request.key, measurements=measurements, paired_outcomes=kept)
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

    def asked(self, key: str, who: str = "ana", **changes: object) -> httpx.Response:
        kept = self.stand.ledger.verdict(key)
        assert kept is not None
        body = {"evaluation": key, "verdict": kept[0].digest, "decision": "approve", "reason": "read the answers"}
        return self.client.post("/v1/reviews", json=body | changes, headers=self.header(who))

    def header(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def work(self, key: str) -> str:
        """What a worker does when the doorbell rings, and then the dispatcher, by the clock of the stand; how it ended."""
        digest = self.stand.ledger.reviews(key)[0].verdict_digest
        claim = self.stand.ledger.claim(review_key(key, digest), "w", 60, self.stand.clock())
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
