"""The command line of the examination. Exit 0 nothing wrong, 1 problems, 2 something could not be checked."""

import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from gate.doctor.examining import examined
from gate.doctor.machine import machine_checks
from gate.domain.examination import Check, Finding, Health
from gate.settings import Settings, settings

COLOURS = {Health.OK: "green", Health.WARNING: "yellow", Health.PROBLEM: "red", Health.UNCHECKED: "magenta"}
JOINED = "basin_gate.checks"
"""Entry points that join further checks: each is called with the settings and gives them."""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Examine this installation by trying it. Exit status 0 nothing wrong, 1 problems, 2 something could not be checked."""
    findings = examined(tuple(all_checks(settings())))
    if as_json:
        rows = ",\n".join(finding.model_dump_json() for finding in findings)
        sys.stdout.write(f'{{"findings": [\n{rows}\n]}}\n')
    else:
        console = Console()
        for finding in findings:
            console.print(shown(finding), soft_wrap=True)
    raise typer.Exit(status(findings))


def all_checks(given: Settings) -> Iterator[Check]:
    """Every check that this installation's parts know; each part brings its own."""
    yield from machine_checks(given, time.time)
    yield from _of_the_service(given)
    for entry in sorted(entry_points(group=JOINED), key=lambda e: e.name):
        try:
            checks = entry.load()
        except ModuleNotFoundError:
            continue  # this image has no such part: its checks are not for here
        yield from checks(given)


def _of_the_service(given: Settings) -> Iterator[Check]:
    try:
        from gate.doctor.service import service_checks
    except ModuleNotFoundError:
        return  # the guard's image: it talks to no broker and no database of ours
    yield from service_checks(given, time.time)


def status(findings: Sequence[Finding]) -> int:
    """The exit status: problems before what could not be checked; warnings are told only."""
    found = {finding.health for finding in findings}
    return 1 if Health.PROBLEM in found else 2 if Health.UNCHECKED in found else 0


def shown(finding: Finding) -> Text:
    """A finding for people: one line, and one more each for what was expected and how to get there."""
    text = Text()
    text.append(f"{finding.health.value:<10}", style=COLOURS[finding.health])
    text.append(f"{finding.check}: {finding.found}")
    if finding.expected:
        text.append(f"\n          expected {finding.expected}\n          fix      {finding.fix}")
    return text
