"""``basin-gate export``: a verdict in the form that other tools read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gate.client import GateClient, path
from gate.domain.errors import InvalidInput
from gate.domain.export import Format
from gate.domain.reference import parse_reference
from gate.settings import settings


def export(
    target: Annotated[str, typer.Argument(help="models:/NAME/VERSION.")],
    form: Annotated[Format, typer.Option("--format", help="A CycloneDX 1.6 ML-BOM, or a section of a model card.")],
    output: Annotated[Path | None, typer.Option(help="Write it here; without it, to the standard output.")] = None,
) -> None:
    """Export the verdict on a version: as a bill of materials (CycloneDX), or as a section for its model card."""
    asked = parse_reference(target)
    if asked.version is None:
        raise InvalidInput(f"expected models:/NAME/VERSION, found {target!r}; name the version by its number")
    document = GateClient.of(settings()).read(path("v1", "exports", form.value, asked.name, asked.version))
    if output is None:
        sys.stdout.write(document.decode() + ("" if document.endswith(b"\n") else "\n"))
        return
    try:
        output.write_bytes(document)
    except OSError as error:
        raise InvalidInput(f"{output}: expected a place to write to, found: {error.strerror}") from error
