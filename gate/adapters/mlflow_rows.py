"""MLflow's entities as the gate's values."""

from collections.abc import Sequence
from typing import Any

from gate.domain.checkpoint import ModelVersion
from gate.domain.promotion import NO_STAGE, Holding


def holdings_of(model: Any) -> Sequence[Holding]:
    """What the versions of a registered model hold: each alias, each stage by its newest version, and the model
    itself by the newest of all."""
    aliases = [Holding(model.name, "alias", alias, str(number)) for alias, number in dict(model.aliases).items()]
    latest = [(v.current_stage, str(v.version)) for v in model.latest_versions or ()]
    stages = [Holding(model.name, "stage", stage, number) for stage, number in latest if stage not in (None, NO_STAGE)]
    newest = max((number for _, number in latest), key=int, default=None)
    model_itself = [Holding(model.name, "model", model.name, newest)] if newest else []
    return (*aliases, *stages, *model_itself)


def version_of(found: Any) -> ModelVersion:
    """The version that a row is about."""
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        created_ms=int(found.creation_timestamp),
        source=found.source or "",
        run_id=found.run_id or None,
        tags=dict(found.tags or {}),
        description=found.description or "",
        aliases=tuple(found.aliases or ()),
        stage=found.current_stage or "None",
    )
