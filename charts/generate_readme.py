"""Brings what follows from other files up to date: ``python charts/generate_readme.py``, where the product is installed.

The schema's list of settings follows from the product's settings, ``charts/basin-gate/README.md`` from schema and defaults.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent / "basin-gate"
HEAD = """<!-- Written by charts/generate_readme.py; change values.schema.json or values.yaml, not this page. -->

# Chart basin-gate

Runs Basin Gate beside an existing MLflow: API, dispatcher, CPU and GPU workers, a small Valkey, and what watches and fences
them in. [Install on Kubernetes](../../docs/howto/install-on-kubernetes.md) goes through it step by step; the files under
[`ci/`](ci) are complete examples, from a trial on one node to production.

Kubernetes 1.29 or newer; tried with Helm 4.

## Values

| value | default | meaning |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return HEAD + "".join(rows(schema, defaults, "")) + "\nAnything else is refused, so a misspelt value is noticed.\n"


def rows(schema: Mapping[str, Any], defaults: Any, path: str) -> Iterator[str]:
    """A row of each value, those of objects after what the object is."""
    for name, part in schema["properties"].items():
        here, default = f"{path}{name}", defaults.get(name) if isinstance(defaults, dict) else None
        inner = "properties" in part and name != "resources"
        shown = "" if inner or default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
        meaning = part["description"] + choices(part)
        yield f"| `{here}` | {shown} | {meaning} |\n".replace("  ", " ")
        if inner:
            yield from rows(part, default, f"{here}.")
        elif isinstance(part.get("additionalProperties"), dict) and "properties" in part["additionalProperties"]:
            yield from rows(part["additionalProperties"], None, f"{here}.NAME.")
        elif part.get("type") == "array" and "properties" in part["items"]:
            yield from rows(part["items"], None, f"{here}[].")


def choices(part: Mapping[str, Any]) -> str:
    """The values allowed, where they are few and named."""
    return f" One of {', '.join(f'`{c}`' for c in part['enum'])}." if "enum" in part else ""


def free_settings() -> list[str]:
    """Variables of the settings that values may set: neither those that the chart sets itself, nor secrets."""
    from gate.settings import Settings

    templates = "".join(file.read_text() for file in (CHART / "templates").rglob("*") if file.is_file())
    set_here = set(re.findall(r"GATE_[A-Z_]+[A-Z]", templates))
    known = {
        f"GATE_{n.upper()}" for n, field in Settings.model_fields.items() if "SecretStr" not in str(field.annotation)
    }
    return sorted(known - set_here)


def bring_schema_up_to_date() -> None:
    """Writes the list of settings into the schema."""
    file = CHART / "values.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    schema["properties"]["settings"]["propertyNames"]["enum"] = free_settings()
    file.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    bring_schema_up_to_date()
    (CHART / "README.md").write_text(page(), encoding="utf-8")
