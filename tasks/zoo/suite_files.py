"""Writes a suite: one YAML file naming the capabilities, one JSON-lines file of items for each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability of a suite: how its items are scored and how much of the score may be lost."""

    scorer: str
    margin: float
    items: Sequence[Mapping[str, Any]]


def write_suite(folder: Path, *, name: str, comment: str, licence: str, capabilities: Mapping[str, Capability]) -> None:
    """Write ``suite.yaml`` and one ``NAME.jsonl`` for each capability."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {comment}", f"name: {name}", f"licence: {json.dumps(licence)}", "capabilities:"]
    for label, capability in capabilities.items():
        items = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in capability.items)
        (folder / f"{label}.jsonl").write_text(items, encoding="utf-8")
        lines.append(
            f"  - {{name: {label}, scorer: {capability.scorer}, items: {label}.jsonl, margin: {capability.margin:.2f}}}"
        )
    (folder / "suite.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
