"""What a command says: one JSON document where that is asked for, else lines, each whole."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def told(as_json: bool, document: Mapping[str, object], *lines: str) -> None:
    """Prints the document, or the lines instead."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        say(*lines)


def say(*lines: str) -> None:
    """Prints lines as they are."""
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
