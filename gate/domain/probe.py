"""How the guard inside MLflow is asked whether it is there: by an alias that it always refuses, with what it goes by.

An MLflow without the guard answers the same request with "no such version": the probe names one that cannot exist,
so it leaves nothing behind either way.
"""

import json
from collections.abc import Mapping

from pydantic import ValidationError

from gate.domain.checkpoint import Frozen, Sha256

PROBE_ALIAS = "basin-gate-probe"
PROBE_MODEL = "basin-gate-probe-of-no-model"
_MARK = "basin-gate guard: "


class GuardState(Frozen):
    """What a guard goes by: its policies' digests by name, and the identifiers of the keys it trusts."""

    policies: Mapping[str, Sha256]
    keys: tuple[str, ...]


def said(state: GuardState) -> str:
    """The guard's answer to a probe.

    >>> heard(said(GuardState(policies={}, keys=("a",)))).keys
    ('a',)
    """
    return f"{_MARK}{json.dumps(state.model_dump(mode='json'), sort_keys=True)}"


def heard(answer: str) -> GuardState | None:
    """The state in an answer of MLflow's, or ``None`` where no guard spoke."""
    _, mark, rest = answer.partition(_MARK)
    if not mark:
        return None
    try:
        document, _ = json.JSONDecoder().raw_decode(rest)
        return GuardState.model_validate(document)
    except (ValueError, ValidationError):
        return None
