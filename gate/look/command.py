"""``basin-gate ls | show | diff``. On a terminal tables and colour; in a pipe plain lines; with --json JSON."""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gate.client import GateClient, path
from gate.domain.verdict import Verdict
from gate.look.comparing import compared
from gate.look.shown import changes, lines, prompt_lines, table, verdict_lines
from gate.settings import settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="Its version number.")]


def ls(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    name: Annotated[str, typer.Option(help="Only of this registered model.")] = "",
    as_json: AsJson = False,
) -> None:
    """List evaluations, newest first: how far each is, and what came of it. In a pipe: tab-separated, no heading."""
    address = f"/v1/evaluations?limit={limit}" + (f"&name={path(name)[1:]}" if name else "")
    found = client().get(address)
    if as_json:
        _print_json(found)
    elif sys.stdout.isatty():
        Console().print(table(found["evaluations"]))
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(found["evaluations"]))


def show(
    name: Model,
    number: Number,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Also prompts whose answers changed; they may be offensive or harmful.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the verdict of one version: the outcome, why, and every rule that did not pass."""
    found = client().get(path("v1", "verdicts", name, number))
    if prompts:
        found["prompts"] = client().get(path("v1", "prompts", name, number))
    if as_json:
        _print_json(found)
        return
    _print_lines(verdict_lines(found, settings().public_url))
    if prompts:
        _print_lines(prompt_lines(found["prompts"]))


def diff(
    name: Model,
    one: Annotated[str, typer.Argument(metavar="VERSION", help="Its version number.")],
    other: Annotated[str, typer.Argument(metavar="VERSION", help="The version to compare it with.")],
    as_json: AsJson = False,
) -> None:
    """Compare the verdicts of two versions of a model, rule by rule; what changed comes first."""
    found = compared(*(_verdict(name, number) for number in (one, other)))
    if as_json:
        _print_json({"name": name, "versions": [one, other], **found.as_document()})
        return
    _print_lines(changes(found, one, other))


def client() -> GateClient:
    """The gate that the settings name."""
    return GateClient.of(settings())


def _verdict(name: str, number: str) -> Verdict:
    return Verdict.model_validate(client().get(path("v1", "verdicts", name, number))["verdict"])


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _print_lines(lines: Iterable[Text]) -> None:
    console = Console()
    for line in lines:
        # A terminal is wrapped at words; a pipe gets each line whole.
        console.print(line, soft_wrap=not console.is_terminal)
