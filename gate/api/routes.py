"""Which role each route needs. The one place: what does not stand here is not served."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from starlette.routing import compile_path

from gate.domain.access import Role

PUBLIC = frozenset(
    {
        ("POST", "/webhooks/mlflow"),  # each delivery is signed
        ("POST", "/admission"),  # Kubernetes' API server sends no token; the answer says what is approved, no more
        ("POST", "/admission/warn"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),  # no model's name is in it
        ("GET", "/static/{name}"),
        ("GET", "/sign-in"),
        ("POST", "/sign-in"),
        ("POST", "/sign-out"),
    }
)
PAGES: Mapping[tuple[str, str], Role] = {
    ("GET", "/"): Role.READER,
    ("GET", "/evaluations/{key}"): Role.READER,
    ("GET", "/evaluations/{key}/report"): Role.READER,
    ("GET", "/evaluations/{key}/events"): Role.READER,
    ("GET", "/bases"): Role.READER,
    ("GET", "/bases/{digest}"): Role.READER,
    ("GET", "/queue"): Role.READER,
    ("GET", "/reviews"): Role.READER,
    ("GET", "/policies"): Role.READER,
    ("GET", "/policies/{name}"): Role.READER,
    ("GET", "/replay"): Role.READER,
    ("GET", "/waivers"): Role.READER,
    ("GET", "/waivers/ask"): Role.READER,
    ("GET", "/waivers/{id}"): Role.READER,
    ("GET", "/docs"): Role.READER,
    ("GET", "/docs/oauth2-redirect"): Role.READER,
}
"""What people look at in a browser: they are led to where one signs in."""
FORMS: Mapping[tuple[str, str], Role] = {
    ("POST", "/evaluations/{key}/review"): Role.REVIEWER,
    ("POST", "/replay"): Role.POLICY_AUTHOR,
    ("POST", "/waivers"): Role.SUBMITTER,
    ("POST", "/waivers/{id}/approvals"): Role.REVIEWER,
    ("POST", "/waivers/{id}/revocation"): Role.REVIEWER,
}
"""What a person signed in does by a form of these pages: the session counts there, if the page is the gate's own."""
NEEDED: Mapping[tuple[str, str], Role] = {
    **PAGES,
    **FORMS,
    ("GET", "/openapi.json"): Role.READER,
    ("GET", "/v1/evaluations"): Role.READER,
    ("GET", "/v1/evaluations/{key}"): Role.READER,
    ("GET", "/v1/verdicts/{key}"): Role.READER,
    ("GET", "/v1/verdicts/{name:path}/{version}"): Role.READER,
    ("GET", "/v1/prompts/{name:path}/{version}"): Role.READER,
    ("GET", "/v1/exports/{format}/{name:path}/{version}"): Role.READER,
    ("GET", "/v1/backlog"): Role.READER,
    ("GET", "/v1/reviews"): Role.READER,
    ("POST", "/v1/reviews"): Role.REVIEWER,
    ("GET", "/v1/reviews/{name:path}/{version}"): Role.READER,
    ("GET", "/v1/break-glass"): Role.READER,
    ("POST", "/v1/break-glass"): Role.REVIEWER,
    ("GET", "/v1/waivers"): Role.READER,
    ("GET", "/v1/waivers/{id}"): Role.READER,
    ("POST", "/v1/waivers"): Role.SUBMITTER,
    ("POST", "/v1/waivers/{id}/approvals"): Role.REVIEWER,
    ("POST", "/v1/waivers/{id}/revocation"): Role.REVIEWER,
    ("GET", "/v1/policies"): Role.READER,
    ("GET", "/v1/policies/{name}"): Role.READER,
    ("POST", "/v1/policies/lint"): Role.POLICY_AUTHOR,
    ("POST", "/v1/policies/replay"): Role.POLICY_AUTHOR,
    ("POST", "/v1/promotions"): Role.SUBMITTER,
    ("POST", "/v1/promotions/decision"): Role.SUBMITTER,
    ("POST", "/v1/promotions/flagger"): Role.SUBMITTER,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A route as it stands here; ``needs`` is ``None`` for one that is everybody's."""

    method: str
    template: str
    pattern: re.Pattern[str]
    needs: Role | None


def _known() -> Iterator[Known]:
    for method, template in sorted(PUBLIC):
        yield Known(method, template, compile_path(template)[0], None)
    for (method, template), role in NEEDED.items():
        yield Known(method, template, compile_path(template)[0], role)


KNOWN = tuple(_known())


def at(path: str) -> Mapping[str, Known]:
    """The routes at a path, by their methods; empty where there is none."""
    found: dict[str, Known] = {}
    for route in KNOWN:
        if route.pattern.match(path):
            found.setdefault(route.method, route)
    return found
