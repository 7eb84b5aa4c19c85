"""The policies in force: all of them, and each with its rules in words."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from gate.adapters.policy_files import policy_text
from gate.api.dashboard.page import PageRoute, page
from gate.api.door import Door
from gate.api.policies import LONGEST, in_force
from gate.domain.policy import DEFECT_DEFAULTS
from gate.pages.fleet import OUTCOMES
from gate.pages.policies import layer, matched, protects, rule_lines, use_of
from gate.pages.prompts import quoted
from gate.pages.rules import CONSEQUENCES

router = APIRouter(prefix="/policies", route_class=PageRoute)


@router.get("")
def policies(request: Request) -> HTMLResponse:
    """The policies in force, in the order in which they are asked whether they speak of a version."""
    door: Door = request.app.state.door
    uses = door.ledger.policy_uses()
    rows = [
        (each, layer(each), matched(each), protects(each.protected), use_of(each, uses))
        for each in door.policies.policies
    ]
    return page("policies.html", here="policies", rows=rows, outcomes=OUTCOMES)


@router.get("/{name}")
def policy(request: Request, name: str) -> HTMLResponse:
    """One policy in force, as it judges: with what it inherits."""
    door: Door = request.app.state.door
    found = in_force(door, name)
    return page(
        "policy.html",
        here="policies",
        policy=found,
        layer=layer(found),
        matched=matched(found),
        protects=protects(found.protected),
        rules=rule_lines(found),
        defects=[(code.replace("_", " "), CONSEQUENCES[found.on_defect(code)]) for code in DEFECT_DEFAULTS],
        use=use_of(found, door.ledger.policy_uses()),
        outcomes=OUTCOMES,
        text=quoted(policy_text(found, door.policies), LONGEST),
    )
