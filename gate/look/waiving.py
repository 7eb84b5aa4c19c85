"""``basin-gate waiver``: ask for an exception to one rule, approve it, end it, look at those there are."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gate.client import GateClient, path
from gate.look.printing import AsJson, told
from gate.pages.inert import inert
from gate.settings import settings

waiver_app = typer.Typer(
    no_args_is_help=True, help="Exceptions to one rule for the exact bytes of a version, which expire."
)
Id = Annotated[str, typer.Argument(metavar="ID", help="The waiver's id, whole.")]
ID_CHARACTERS = 64


@waiver_app.command("ls")
def ls(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, those in force or asked for first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the waivers, those in force or asked for first."""
    found = _client().get(f"/v1/waivers?limit={limit}")
    for each in () if as_json else found["waivers"]:
        sys.stdout.write("\t".join((each["id"], each["state"], each["expires_at"], inert(_what(each), 400))) + "\n")
    if as_json or not found["waivers"]:
        told(as_json, found, "There are no waivers.")


@waiver_app.command("show")
def show(id_: Id, as_json: AsJson = False) -> None:
    """Show one waiver: what it lets, for whom, why, who approved it, until when."""
    found = _client().get(path("v1", "waivers", id_))
    told(as_json, found, *_lines(found))


@waiver_app.command("request")
def request(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")],
    number: Annotated[str, typer.Argument(metavar="VERSION", help="Its version number.")],
    rule: Annotated[str, typer.Option(help="The rule that holds it back.")],
    owner: Annotated[str, typer.Option(help="Who answers for the exception.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who looks at the version reads it.")],
    ticket: Annotated[str, typer.Option(help="Where the matter is followed.")],
    days: Annotated[float, typer.Option(help="For how long; the policy says how long at most.")],
    as_json: AsJson = False,
) -> None:
    """Ask for a waiver. It counts once enough others have approved it: one, or two where the rule is critical."""
    asked = {"name": name, "version": number, "rule": rule, "owner": owner, "reason": reason, "ticket": ticket}
    _, found = _client().post("/v1/waivers", {**asked, "days": days})
    told(as_json, found, *_lines(found))


@waiver_app.command("approve")
def approve(id_: Id, as_json: AsJson = False) -> None:
    """Approve a waiver. It needs a reviewer's token; whoever asked for it cannot grant it alone."""
    _, found = _client().post(path("v1", "waivers", id_, "approvals"), {})
    told(as_json, found, *_lines(found))


@waiver_app.command("revoke")
def revoke(
    id_: Id, reason: Annotated[str, typer.Option(help="Why it ends before its time.")], as_json: AsJson = False
) -> None:
    """End a waiver at once, or turn a request down; what rested on it is judged again."""
    _, found = _client().post(path("v1", "waivers", id_, "revocation"), {"reason": reason})
    told(as_json, found, *_lines(found))


def _lines(found: Mapping[str, Any]) -> tuple[str, ...]:
    missing = found["approvals_missing"] if found["state"] == "requested" else 0
    return (
        f"waiver {found['id'][:ID_CHARACTERS]} is {found['state']}"
        + (f", {missing} approval(s) missing" if missing else ""),
        inert(_what(found), 400),
        f"for      {found['candidate']} (the files' sha256), until {found['expires_at']}",
        inert(f"why      {found['reason']} ({found['ticket']}; {found['owner']} answers for it)", 1_200),
        inert(f"by       {found['requested_by']}; approved by {', '.join(found['approvers']) or 'nobody yet'}", 600),
    )


def _what(found: Mapping[str, Any]) -> str:
    return f"rule {found['rule']} of policy {found['policy']}" + (", critical" if found["critical"] else "")


def _client() -> GateClient:
    return GateClient.of(settings())
