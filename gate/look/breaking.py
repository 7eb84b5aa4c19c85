"""``basin-gate break-glass``: let a version be promoted now, against its verdict, for hours, and sign for it."""

import re
from typing import Annotated

import typer

from gate.client import GateClient
from gate.domain.errors import InvalidInput
from gate.domain.reference import parse_reference
from gate.look.printing import AsJson, told
from gate.pages.inert import inert
from gate.settings import settings

_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


def break_glass(
    target: Annotated[str, typer.Argument(metavar="models:/NAME/VERSION", help="The version that has to go out now.")],
    reason: Annotated[str, typer.Option(help="Why; everybody who looks at the version reads it.")],
    ticket: Annotated[str, typer.Option(help="Where the matter is followed.")],
    lasts: Annotated[
        str | None,
        typer.Option("--for", metavar="4h", help="For how long: 90m, 4h, 1d. The policy says how long at most."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Approve a version against its verdict, at once and for hours. Needs a reviewer's token and a policy that permits it.

    Everybody is told, an alert fires while it lasts, and somebody else has to review it afterwards.
    """
    named = parse_reference(target)
    if named.version is None:
        raise InvalidInput(f"expected models:/NAME/VERSION, found {target!r}; an alias may be moved meanwhile")
    hours = None if lasts is None else hours_of(lasts)
    asked = {"name": named.name, "version": named.version, "reason": reason, "ticket": ticket, "hours": hours}
    _, found = GateClient.of(settings()).post("/v1/break-glass", asked)
    told(
        as_json,
        found,
        inert(
            f"{found['subject']} is approved against its verdict until {found['expires_at']}, by {found['by']}.", 600
        ),
        "A worker signs it and MLflow follows in a moment; then set the alias.",
        f"Somebody else has to review it by {found['review_by']}: basin-gate review ls",
    )


def hours_of(text: str) -> float:
    """Hours of a duration. Raises `InvalidInput`.

    >>> hours_of("90m"), hours_of("4h"), hours_of("1d")
    (1.5, 4.0, 24.0)
    """
    found = re.fullmatch(r"(\d{1,5})([mhd])", text.strip())
    if found is None:
        raise InvalidInput(f"--for: expected a number of minutes, hours or days such as 90m, 4h or 1d, found {text!r}")
    return int(found[1]) * _HOURS[found[2]]
