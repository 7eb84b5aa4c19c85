"""Policies: those in force, and a draft tried before it is."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from gate.adapters.conditions import idle_rules
from gate.adapters.policy_files import load_draft, select_policy, with_draft
from gate.api.access import CALLER
from gate.api.door import Door
from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput, NotFound
from gate.domain.layers import RuleChange, loosened, rule_changes
from gate.domain.policy import Layer, Policy
from gate.domain.rehearsal import Replay, replay

router = APIRouter(prefix="/v1/policies", tags=["policies"])
SECONDS_A_DAY = 86_400
LONGEST = 100_000
Text = Annotated[str, Field(min_length=1, max_length=LONGEST, description="The policy document, in YAML.")]


class Draft(Frozen):
    """A policy document that is in no file yet."""

    policy: Text


class Rehearsal(Frozen):
    """A draft to be tried on the versions of the last ``days``, at most ``limit`` of them, the newest. ``budget`` is the
    largest part of past approvals that may be lost."""

    policy: Text
    days: Annotated[int, Field(ge=1, le=3650)] = 90
    budget: Annotated[float | None, Field(ge=0, le=1)] = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class PolicySummary(Frozen):
    """A policy in force; ``rules`` are its rules' names."""

    name: str
    description: str
    enforcement: str
    match: str
    layer: Layer | None
    parent: str | None
    rules: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, policy: Policy) -> "PolicySummary":
        """The summary of a policy."""
        same = ("name", "description", "enforcement", "match", "layer", "parent", "digest")
        return cls(rules=tuple(rule.name for rule in policy.rules), **{each: getattr(policy, each) for each in same})


class PoliciesView(Frozen):
    """The policies in force, in the order in which they are asked whether they speak of a version."""

    policies: tuple[PolicySummary, ...]


class PolicyView(Frozen):
    """A policy with all that it inherits."""

    digest: str
    document: Policy


class LintView(Frozen):
    """What loading the draft says. ``problems`` have line, expected, found and fix; without any there is ``policy``, and what
    the draft changes of the policy in force whose name it has: rule by rule, and every way in which it loosens it."""

    problems: tuple[str, ...] = ()
    policy: PolicySummary | None = None
    in_force: str | None = None
    rules: Mapping[str, RuleChange] = {}
    loosened: tuple[str, ...] = ()


class ReplayView(Frozen):
    """Stored evidence judged again by the draft. ``whole`` is false where more versions were judged in these days than
    were asked for."""

    policy: PolicySummary
    days: int
    whole: bool
    replay: Replay
    lost_rate: float | None
    budget: float | None
    over_budget: bool


@router.get("")
def policies(request: Request) -> PoliciesView:
    """The policies in force, in the order in which they are asked."""
    door: Door = request.app.state.door
    return PoliciesView(policies=tuple(map(PolicySummary.of, door.policies.policies)))


@router.get("/{name}")
def policy(request: Request, name: str) -> PolicyView:
    """One policy in force, as it judges: with what it inherits from the layers above."""
    found = in_force(request.app.state.door, name)
    return PolicyView(digest=found.digest, document=found)


@router.post("/lint")
def lint(request: Request, draft: Draft) -> LintView:
    """Checks a draft as the service would load it, and compares it with the policy in force. A draft that cannot be
    loaded is answered with its problems, not with an error. Changes nothing."""
    return linted(request.app.state.door, draft.policy)


@router.post("/replay")
def rehearse(request: Request, asked: Rehearsal) -> ReplayView:
    """Judges stored evidence again by a draft: who would be decided otherwise, by which rule, how many approvals it
    would take. Changes nothing, and is kept in the audit trail.

    The draft takes the place of the policy in force of its name, or of its match, and is tried on the versions that it would then
    speak of. Policies below it keep what they inherit from the text in force.
    """
    return rehearsed(request.app.state.door, asked)


def in_force(door: Door, name: str) -> Policy:
    """The policy in force of that name. Raises `NotFound`."""
    found = _of_name(door, name)
    if found is None:
        raise NotFound(f"expected a policy in force of the name {name[:63]!r}, found none; see GET /v1/policies")
    return found


def linted(door: Door, text: str) -> LintView:
    """What is wrong with a draft, or what it changes."""
    try:
        draft = load_draft(text, door.policies)
    except InvalidInput as error:
        return LintView(problems=tuple(str(error).splitlines()))
    before = _of_name(door, draft.name)
    if before is None:
        return LintView(policy=PolicySummary.of(draft))
    return LintView(
        policy=PolicySummary.of(draft),
        in_force=before.digest,
        rules=rule_changes(before, draft),
        loosened=loosened(before, draft),
    )


def rehearsed(door: Door, asked: Rehearsal) -> ReplayView:
    """What a draft would make of the versions judged before. Raises `InvalidInput` for one that cannot be loaded."""
    draft, now = load_draft(asked.policy, door.policies), door.clock()
    beside = with_draft(draft, door.policies)
    history = door.ledger.judged_since(now - asked.days * SECONDS_A_DAY)
    taken = islice(history, asked.limit)
    found = replay(
        ((draft if select_policy(beside, each.version) == draft else None, each) for each in taken), idle_rules
    )
    view = ReplayView(
        policy=PolicySummary.of(draft),
        days=asked.days,
        whole=next(history, None) is None,
        replay=found,
        lost_rate=found.lost_rate,
        budget=asked.budget,
        over_budget=found.exceeds(asked.budget),
    )
    caller = CALLER.get()
    detail = {
        "policy": draft.name,
        "digest": draft.digest,
        "days": asked.days,
        "judged": found.judged,
        "lost": found.lost,
    }
    door.ledger.audit("policy replayed", caller.name if caller else "", detail, now)
    return view


def _of_name(door: Door, name: str) -> Policy | None:
    return next((each for each in door.policies.policies if each.name == name), None)
