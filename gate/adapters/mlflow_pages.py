"""Large pages of MLflow's searches, read as plain JSON: its own client takes ten times as long to unpack them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response

VERSIONS_A_PAGE = 1000
MODELS_A_PAGE = 1000
PREFIX = "/api/2.0/mlflow"

Row = Mapping[str, Any]


def page_of_versions(uri: str, token: str) -> tuple[Sequence[Row], str]:
    """The next versions, oldest first, without those of models dressed up as prompts, and the token of the next page."""
    given = {"max_results": VERSIONS_A_PAGE, "order_by": ["creation_timestamp ASC"]}
    return _page(uri, "model-versions/search", "model_versions", token, given)


def page_of_models(uri: str, token: str, wanted: str | None) -> tuple[Sequence[Row], str]:
    """The next registered models of which a filter holds, and the token of the next page."""
    given: dict[str, Any] = {"max_results": MODELS_A_PAGE}
    return _page(
        uri, "registered-models/search", "registered_models", token, given | ({"filter": wanted} if wanted else {})
    )


def _page(uri: str, path: str, field: str, token: str, given: Row) -> tuple[Sequence[Row], str]:
    endpoint = f"{PREFIX}/{path}"
    asked = {**given, **({"page_token": token} if token else {})}
    reply = http_request(host_creds=get_default_host_creds(uri), endpoint=endpoint, method="GET", params=asked)
    body = verify_rest_response(reply, endpoint).json()
    return body.get(field, ()), body.get("next_page_token", "")
