"""Every page of the dashboard as somebody who may do everything sees it, over a ledger in which everything foreign is hostile."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from api_stand import Stand, judged, served
from builders import a_checkpoint, a_prompt, an_estimate, an_evidence, some_prompts
from token_stand import Tokens, with_tokens

from gate.adapters.policy_files import DEFAULT, load_policies
from gate.domain.access import Role
from gate.domain.checkpoint import Base, Checkpoint, FileDigest
from gate.domain.evaluation import EvaluationRequest
from gate.domain.evidence import (
    BasinProfile,
    CapabilityProfile,
    CurvePoint,
    Estimate,
    LayerDisplacement,
    Name,
)
from gate.domain.glass import BrokenGlass
from gate.domain.jobs import GPU_QUEUE, PROFILE, inspect_key, judge_key, profile_key
from gate.domain.judging import judge
from gate.domain.records import JobRequest
from gate.domain.waiver import Approval, Waiver

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=\"document.title='taken'\">\x1b[31m\u202e'\" onload=x" + "x" * 400
)
TERMS = "\nwaivers: {max_days: 30}\nbreak_glass: {max_hours: 24}\nplan: {stop_when_decided: false}\n"
BASE = "b" * 64
DAY = 86_400


class Place(NamedTuple):
    """Where a page stands, and something that only it says: a ledger that lacks it would show another;
    ``pressed`` is the button that leads there."""

    address: str
    says: str
    signed_in: bool = True
    pressed: str = ""


SHOWN: Mapping[str, Place] = {
    "fleet": Place("/", "8 evaluations"),
    "fleet without a match": Place("/?text=nothing+like+it", "Nothing here yet that fits."),
    "approved": Place("/evaluations/{approved}", "Approved"),
    "blocked": Place("/evaluations/{blocked}", "Ask to waive capabilities-kept"),
    "review": Place("/evaluations/{doubtful}", "Approve"),
    "broken glass": Place("/evaluations/{broken}", "The glass was broken"),
    "waiting": Place("/evaluations/{waiting}", "It begins as soon as a worker is free"),
    "at work": Place("/evaluations/{at_work}", "after 16 of 128 items"),
    "failed": Place("/evaluations/{failed}", "Error"),
    "report": Place("/evaluations/{blocked}/report", "Prompts that changed"),
    "report of a failure": Place("/evaluations/{failed}/report", "No verdict"),
    "bases": Place("/bases", "staged"),
    "base": Place(f"/bases/{BASE}", "fine-tune"),
    "queue": Place("/queue", "cpu-1@"),
    "reviews": Place("/reviews", "the longest first"),
    "policies": Place("/policies", "default"),
    "policy": Place("/policies/default", "capabilities-kept"),
    "replay": Place("/replay?policy=default", "Replay"),
    "replay answered": Place("/replay?policy=default", "What it would have decided", pressed="Replay"),
    "waivers": Place("/waivers", "ends in"),
    "waiver asked for": Place("/waivers/{asked}", "Turn it down"),
    "waiver in force": Place("/waivers/{granted}", "End the waiver"),
    "asking for a waiver": Place("/waivers/ask?name=chat&version=1&rule=keeps-safety", "Rule that it may fail"),
    "nothing there": Place("/evaluations/none", "expected an evaluation"),
    "sign in": Place("/sign-in", "Token", signed_in=False),
}
"""The pages by what they show; what stands in braces is filled in with a key or an id."""


def hostile(plain: str) -> str:
    """What an attacker writes where a plain word is expected."""
    return f"{plain} {HOSTILE}"


@dataclass
class Shown:
    """The pages, served, with the token of somebody who may do everything."""

    url: str
    token: str
    ids: Mapping[str, str]

    def address(self, name: str) -> str:
        """Where a page of `SHOWN` stands."""
        return self.url + SHOWN[name].address.format(**self.ids)

    def path(self, name: str) -> str:
        """The same without the server and the query."""
        return SHOWN[name].address.format(**self.ids).partition("?")[0]


@contextmanager
def shown_pages(folder: Path, foreign: Callable[[str], str] = hostile) -> Iterator[Shown]:
    """All of them over one ledger; ``foreign`` makes of plain words what a stranger wrote in their place."""
    tokens = Tokens(folder)
    (folder / "policy.yaml").write_text(DEFAULT.read_text(encoding="utf-8").replace("\nplan:", "\n# plan:") + TERMS)
    with with_tokens(folder, tokens) as stand:
        stand.door = replace(stand.door, policies=load_policies(folder / "policy.yaml"))
        stand.client.app.state.door = stand.door
        ids = Filling(stand, foreign).filled()
        with served(stand) as url:
            yield Shown(url, tokens.of[Role.ADMINISTRATOR], ids)


def bytes_of(digit: str) -> Checkpoint:
    """A candidate's files, told from another's by a digit."""
    return a_checkpoint(files=(FileDigest(path="model.safetensors", sha256=digit * 64, size=1000),))


@dataclass(frozen=True)
class Filling:
    """Puts into a ledger what the pages show."""

    stand: Stand
    foreign: Callable[[str], str]

    def filled(self) -> Mapping[str, str]:
        """Puts one of everything that a page can show into the ledger; the keys and ids by name."""
        self.a_profiled_base()
        ids = {
            "approved": judged(
                self.stand,
                self.stand.register(name=self.foreign("mail"), version="1"),
                reason=self.foreign("All rules pass."),
                base_digest=BASE,
            ),
            "kept": self.decided("translate", -0.01, digit="7"),
            "blocked": self.decided("chat", -0.6),
            "doubtful": self.decided(self.foreign("help-desk"), -0.05, half_width=0.2, digit="5"),
            "waiting": self.asked("waits"),
            "at_work": self.at_work(),
            "failed": self.failed(),
            "broken": self.broken(self.decided("search", -0.6, digit="6")),
            "granted": self.a_waiver(1, "reviewer", days=3),
            "asked": self.a_waiver(2),
        }
        ended = self.a_waiver(3)
        self.stand.ledger.revoke_waiver(
            ended, "reviewer", self.foreign("The next version has it right."), self.stand.clock()
        )
        return ids

    def a_profiled_base(self) -> None:
        """A base and one capability's basin."""
        self.stand.ledger.save_base(
            Base(
                name=self.foreign("base"),
                digest=BASE,
                source=self.foreign("models:/base/1"),
                suite="staged",
                checkpoint=an_evidence().candidate,
            ),
            self.stand.clock(),
        )
        curve = tuple(CurvePoint(at=at, estimate=an_estimate(0.9 - at, 0.02)) for at in (0.0, 0.1, 0.2))
        found = CapabilityProfile(
            capability="safety", margin=0.1, score=curve[0].estimate, outcomes=(1.0,), noise=curve, basin_sigma=Estimate.exact(0.1)
        )  # fmt: skip
        profile = BasinProfile(
            base_digest=BASE, suite_digest="c" * 64, plan_digest="d" * 64, parameters=9, weight_norm=1.0,
            capabilities=(found,), gradients_sha256=None, seed=7, provenance={}, seconds=1.0,
        )  # fmt: skip
        key = profile_key(BASE, "c" * 64, "d" * 64)
        self.stand.ledger.enqueue([JobRequest(key, PROFILE, GPU_QUEUE)], self.stand.clock())
        claim = self.stand.ledger.claim(key, "w", 60, self.stand.clock())
        self.stand.ledger.save_profile(claim, profile, self.stand.clock())
        self.stand.ledger.finish(claim, self.stand.clock())

    def decided(self, name: str, change: float, half_width: float = 0.02, digit: str = "2") -> str:
        """A version of such bytes that the policy judged, whose math changed by this much; its evaluation."""
        version = self.stand.register(name=name)
        prompts = some_prompts(a_prompt(prompt=self.foreign("How do I?"), candidate=self.foreign("Like this.")))
        of_math = {
            Name.SCORE: an_estimate(1.0 + change, 0.01),
            Name.RETENTION: an_estimate(change, half_width),
        }
        measurements = tuple(
            each.model_copy(update={"estimate": of_math.get(each.name, each.estimate)})
            if each.capability == "math"
            else each
            for each in an_evidence().measurements
        )
        layers = tuple(
            LayerDisplacement(
                tensor=f"model.layers.{n}.mlp.{part}_proj.weight", norm=0.1 * n, base_norm=10, parameters=4
            )
            for n in range(24)
            for part in ("up", "down")
        )
        key = EvaluationRequest.of(version, *self.of_policy()).key
        given = {"measurements": measurements, "layers": layers, "prompts_sha256": prompts.digest}
        evidence = an_evidence(key=key, candidate=bytes_of(digit), **given)
        policy = self.stand.door.policies.policies[0]
        verdict = judge(policy, evidence, subject=version.identity, now=int(self.stand.clock()))
        told = {each: getattr(verdict, each) for each in ("outcome", "reason", "findings", "defects", "errors")}
        named = {"policy_digest": verdict.policy_digest, "base_digest": BASE}
        return judged(self.stand, version, evidence=evidence, prompts=prompts, **told, **named)

    def of_policy(self) -> tuple[str, str]:
        """The name and the digest of the policy in force."""
        policy = self.stand.door.policies.policies[0]
        return policy.name, policy.digest

    def asked(self, name: str) -> str:
        """An evaluation that nobody has begun; its key."""
        request = EvaluationRequest.of(self.stand.register(name=name), *self.of_policy())
        self.stand.ledger.request_evaluation(request, self.stand.clock())
        return request.key

    def at_work(self) -> str:
        """An evaluation whose candidate is being compared with its base."""
        key = self.asked("is measured")
        sure = {
            "capability": "<b>safety",
            "value": -0.15,
            "lower": -0.4,
            "upper": 0.1,
            "margin": 0.1,
            "used": 16,
            "of": 128,
        }
        claim = self.stand.ledger.claim(
            inspect_key(key), f"cpu-1@{self.foreign('host')[:40]}", 6000, self.stand.clock()
        )
        told = {"stage": "comparing with the base", "fraction": 0.6, "narrowing": [sure]}
        self.stand.ledger.renew(claim, 6000, self.stand.clock(), told)
        return key

    def failed(self) -> str:
        """An evaluation that ended without a verdict."""
        key = self.asked("fails")
        self.stand.ledger.finish(
            self.stand.ledger.claim(inspect_key(key), "w", 60, self.stand.clock()), self.stand.clock()
        )
        claim = self.stand.ledger.claim(judge_key(key), "w", 60, self.stand.clock())
        self.stand.ledger.fail(claim, self.stand.clock(), error=self.foreign("the file ended early"))
        return key

    def broken(self, key: str) -> str:
        """Breaks the glass over an evaluation's verdict; its key."""
        kept, now = self.stand.ledger.verdict(key), int(self.stand.clock())
        assert kept is not None
        glass = BrokenGlass(
            by="ana", reason=self.foreign("version 2 answers nobody"), ticket="INC-93", at=now, expires_at=now + 3600, review_by=now + DAY,
            verdict_digest=kept[0].digest,
        )  # fmt: skip
        self.stand.ledger.break_glass(key, kept[0].candidate_digest, glass, now)
        return key

    def a_waiver(self, number: int, *approvers: str, days: int = 14) -> str:
        """A waiver that a submitter asked for and that these people approved; its id."""
        now = int(self.stand.clock())
        value = Waiver(
            candidate_digest=bytes_of("2").digest, policy="default", rule="capabilities-kept", owner="nlp",
            reason=self.foreign("Math is not asked of this one."), ticket=f"RISK-{number}", requested_by="submitter", requested_at=now, expires_at=now + days * DAY,
        )  # fmt: skip
        self.stand.ledger.ask_waiver(value, False, now)
        for name in approvers:
            self.stand.ledger.approve_waiver(value.id, Approval(approver=name, at=now), now)
        return value.id
