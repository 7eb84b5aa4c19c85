"""``basin-gate review``: the inbox of verdicts that need a person, and the person's decision."""

import sys
from typing import Annotated

import typer

from gate.client import GateClient, path
from gate.domain.verdict import ReviewDecision, Verdict
from gate.look.printing import AsJson, told
from gate.pages.inert import inert
from gate.settings import settings

review_app = typer.Typer(no_args_is_help=True, help="Decide what the numbers could not: verdicts that need review.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="Its version number.")]
Reason = Annotated[str, typer.Option(help="Why; everybody who looks at the version reads it.")]


@review_app.command("ls")
def ls(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, the longest waiting first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the versions that wait for a person, the longest waiting first."""
    found = _client().get(f"/v1/reviews?limit={limit}")
    for each in () if as_json else found["reviews"]:
        sys.stdout.write(f"{inert(each['subject'], 200)}\t{inert(each['reason'], 400)}\n")
    if as_json or not found["reviews"]:
        told(as_json, found, "Nothing waits for a person.")


@review_app.command("approve")
def approve(name: Name, number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Approve a version whose verdict needs review. It needs a reviewer's token, and not the submitter's."""
    _decide(name, number, ReviewDecision.APPROVE, reason, as_json)


@review_app.command("reject")
def reject(name: Name, number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Reject a version whose verdict needs review: it is blocked from now on."""
    _decide(name, number, ReviewDecision.REJECT, reason, as_json)


def _decide(name: str, number: str, decision: ReviewDecision, reason: str, as_json: bool) -> None:
    client = _client()
    found = client.get(path("v1", "verdicts", name, number))
    asked = {
        "evaluation": found["evaluation"]["key"],
        "verdict": Verdict.model_validate(found["verdict"]).digest,
        "decision": decision.value,
        "reason": reason,
    }
    _, document = client.post("/v1/reviews", asked)
    word = "approved" if decision is ReviewDecision.APPROVE else "rejected"
    told(
        as_json,
        document,
        f"models:/{inert(name, 200)}/{inert(number, 20)} is {word}; the registry follows in a moment.",
    )


def _client() -> GateClient:
    return GateClient.of(settings())
