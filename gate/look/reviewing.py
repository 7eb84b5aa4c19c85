"""``basin-gate review``: the inbox of verdicts that need a person, and the person's decision."""

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from gate.client import GateClient, path
from gate.domain.verdict import ReviewDecision
from gate.look.printing import AsJson, told
from gate.pages.inert import inert
from gate.settings import settings

review_app = typer.Typer(no_args_is_help=True, help="Decide what the numbers could not: verdicts that need review.")
DECIDED = {
    ReviewDecision.APPROVE: "approved",
    ReviewDecision.REJECT: "rejected",
    ReviewDecision.MORE_SAMPLES: "more samples asked for",
}
FOLLOWS = {
    ReviewDecision.APPROVE: "is approved; the registry follows in a moment",
    ReviewDecision.REJECT: "is rejected; the registry follows in a moment",
    ReviewDecision.MORE_SAMPLES: "is compared further with its base, and judged again then",
}
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


@review_app.command("show")
def show(name: Name, number: Number, as_json: AsJson = False) -> None:
    """Show where a version stands: its verdict, whether it can be decided by a person, and every decision made on it."""
    found = _client().get(path("v1", "reviews", name, number))
    told(as_json, found, *_lines(found))


@review_app.command("approve")
def approve(name: Name, number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Approve a version whose verdict needs review. It needs a reviewer's token, and not the submitter's."""
    _decide(name, number, ReviewDecision.APPROVE, reason, as_json)


@review_app.command("reject")
def reject(name: Name, number: Number, reason: Reason, as_json: AsJson = False) -> None:
    """Reject a version whose verdict needs review: it is blocked from now on."""
    _decide(name, number, ReviewDecision.REJECT, reason, as_json)


@review_app.command("ask")
def ask(
    name: Name,
    number: Number,
    reason: Reason,
    items: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many more of each undecided capability; all there are without it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask for more samples: the comparison with the base goes on where it stopped, and the version is judged again."""
    _decide(name, number, ReviewDecision.MORE_SAMPLES, reason, as_json, items)


def _decide(
    name: str, number: str, decision: ReviewDecision, reason: str, as_json: bool, items: int | None = None
) -> None:
    client = _client()
    found = client.get(path("v1", "reviews", name, number))
    asked = {
        "evaluation": found["evaluation"],
        "verdict": found["decide_on"],
        "decision": decision.value,
        "reason": reason,
        **({} if items is None else {"items": items}),
    }
    _, document = client.post("/v1/reviews", asked)
    told(as_json, document, f"models:/{inert(name, 200)}/{inert(number, 20)} {FOLLOWS[decision]}.")


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    word = "needs review" if found["outcome"] == "needs_review" else f"is {found['outcome']}"
    yield inert(f"{found['subject']} {word}: {found['reason']}", 1_200)
    for each in found["broken_glasses"]:
        said = (
            f"{each['reviewed']} by {each['reviewed_by']}" if each["reviewed"] else f"review due by {each['review_by']}"
        )
        ends = f"until {each['expires_at']}" if each["in_force"] else "over"
        yield inert(
            f"{each['at']} glass broken by {each['by']} ({ends}; {said}): {each['reason']} ({each['ticket']})", 1_000
        )
    if found["not_rejectable"] is None:
        yield "A reviewer who did not submit it can decide."
    if found["not_approvable"] is not None:
        yield inert(f"It cannot be approved: {found['not_approvable']}.", 600)
    yield from _samples(found["more_samples"])
    for each in found["reviews"]:
        word = DECIDED[each["decision"]]
        of = "" if each["verdict"] == found["verdict"] else f" (verdict {each['verdict'][:12]})"
        yield inert(f"{each['decided_at']} {word} by {each['reviewer']}{of}: {each['reason']}", 1_000)


def _samples(found: Mapping[str, Any]) -> Iterator[str]:
    if found["asked_by"] is not None:
        at = f" ({found['stage']}, {100 * found['progress']:.0f} %)" if found["stage"] else ""
        yield inert(f"More samples are being compared, as {found['asked_by']} asked{at}.", 400)
    elif found["why_not"] is None:
        left = ", ".join(f"{count} items of {name}" for name, count in found["reserve"].items())
        yield inert(f"More samples can be asked for: {left}.", 1_000)


def _client() -> GateClient:
    return GateClient.of(settings())
