"""``basin-gate ls | show | watch | diff``. On a terminal tables and colour; in a pipe plain lines; with --json JSON."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gate.client import GateClient, path
from gate.domain.errors import NotFound, Unavailable
from gate.domain.verdict import Outcome, Verdict
from gate.look.comparing import compared
from gate.look.shown import changes, lines, prompt_lines, table, verdict_lines
from gate.pages.inert import inert
from gate.settings import settings

EXIT = {Outcome.APPROVED: 0, Outcome.BLOCKED: 1, Outcome.NEEDS_REVIEW: 3, Outcome.ERROR: 2}
APPEARS_WITHIN_S = 30.0
"""MLflow's delivery takes a moment: a version may be looked for before its evaluation was asked for."""
PAGE = 500

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


def watch(
    name: Model,
    number: Number,
    limit_minutes: Annotated[float, typer.Option(min=0, help="Give up after this long.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print each change as a line of JSON.")] = False,
) -> None:
    """Follow an evaluation until its verdict. Exit status 0 approved, 1 blocked, 3 needs review, 2 error or given up."""
    ends = time.monotonic() + 60 * limit_minutes
    row = (
        _followed_as_lines(name, number, ends, as_json)
        if as_json or not sys.stderr.isatty()
        else _bar(name, number, ends)
    )
    if not as_json:
        sys.stdout.write(f"{row['outcome'].replace('_', ' ')}: {inert(row['reason'] or '', 2000)}\n")
    raise typer.Exit(EXIT[Outcome(row["outcome"])])


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


def _bar(name: str, number: str, ends: float) -> Mapping[str, Any]:
    """Follows with a bar that is gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("looking", total=1.0)
        for row in _seen(name, number, ends):
            doing = inert(row["stage"] or row["state"], 60)
            progress.update(bar, description=doing.replace("[", r"\["), completed=row["progress"])
            if row["outcome"]:
                return row
    raise AssertionError("unreachable: what is seen ends with an outcome or raises")


def _followed_as_lines(name: str, number: str, ends: float, as_json: bool) -> Mapping[str, Any]:
    """Follows with a line for each change of state or stage."""
    before = None
    for row in _seen(name, number, ends):
        now = (row["state"], row["stage"])
        if now != before and as_json:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        elif now != before and not row["outcome"]:
            sys.stderr.write(f"{row['state']}\t{inert(row['stage'], 120)}\n")
        sys.stdout.flush()
        before = now
        if row["outcome"]:
            return row
    raise AssertionError("unreachable: what is seen ends with an outcome or raises")


def _seen(name: str, number: str, ends: float) -> Iterator[Mapping[str, Any]]:
    """The evaluation again and again, until it has ended; raises `Unavailable` where the time is over."""
    appears = min(ends, time.monotonic() + APPEARS_WITHIN_S)
    row: Mapping[str, Any] | None = None
    while True:
        row = _row(name, number)
        if row is None and time.monotonic() >= appears:
            raise NotFound(
                f"expected an evaluation of version {number} of {name!r}, found none; is it registered in MLflow?"
            )
        if row is not None:
            yield row
            if row["outcome"]:
                return
        if time.monotonic() >= ends:
            state = row["state"] if row else "not asked for"
            raise Unavailable(f"expected a verdict on {name}/{number} in time, found it {state}; watch it again")
        time.sleep(0.5)


def _row(name: str, number: str) -> Mapping[str, Any] | None:
    """The newest evaluation of a version, looked for a page at a time."""
    for offset in range(0, 1_000_000, PAGE):
        address = f"/v1/evaluations?limit={PAGE}&offset={offset}&name={path(name)[1:]}"
        rows = client().get(address)["evaluations"]
        for row in rows:
            if row["version"] == number:
                return dict(row)
        if len(rows) < PAGE:
            return None
    return None
