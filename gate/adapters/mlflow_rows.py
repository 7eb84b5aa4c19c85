"""What MLflow says of models and versions, as the gate's values: from its client's entities, and from plain JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from gate.domain.checkpoint import ModelVersion
from gate.domain.promotion import NO_STAGE, Holding


def holdings_of(row: Mapping[str, Any]) -> Sequence[Holding]:
    """What the versions of a registered model (JSON) hold: each alias, each stage by its newest version, and the model
    itself by the newest of all."""
    name = row["name"]
    aliases = [Holding(name, "alias", each["alias"], str(each["version"])) for each in row.get("aliases", ())]
    latest = [(each.get("current_stage"), str(each["version"])) for each in row.get("latest_versions", ())]
    stages = [Holding(name, "stage", stage, number) for stage, number in latest if stage not in (None, NO_STAGE)]
    newest = max((number for _, number in latest), key=int, default=None)
    model_itself = [Holding(name, "model", name, newest)] if newest else []
    return (*aliases, *stages, *model_itself)


def version_of(found: Any) -> ModelVersion:
    """The version that an entity of MLflow's client is about."""
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        created_ms=int(found.creation_timestamp),
        source=found.source or "",
        run_id=found.run_id or None,
        tags=dict(found.tags or {}),
        description=found.description or "",
        aliases=tuple(found.aliases or ()),
        stage=found.current_stage or NO_STAGE,
    )


def version_in(row: Mapping[str, Any]) -> ModelVersion:
    """The version that a row of a search (JSON) is about. Searches do not tell aliases."""
    return ModelVersion(
        name=row["name"],
        version=str(row["version"]),
        created_ms=int(row["creation_timestamp"]),
        source=row.get("source", ""),
        run_id=row.get("run_id") or None,
        tags={tag["key"]: tag.get("value", "") for tag in row.get("tags", ())},
        description=row.get("description", ""),
        stage=row.get("current_stage") or NO_STAGE,
    )
