"""Writes the pages under docs/reference/ from the code itself: ``python docs/generate_reference.py``.

A test compares the pages with what this would write, so that they are never out of date.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import typer

from gate.api.app import create_api_description
from gate.cli import app as command_line
from gate.domain.evidence import MEANINGS, DefectCode
from gate.domain.policy import DEFECT_DEFAULTS
from gate.settings import Settings
from tasks.cli import register

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate_reference.py; change the code, not this page. -->\n\n"


def settings_page() -> str:
    """Every setting, from the settings class."""
    rows = [
        "# Settings",
        "",
        "Environment variables; a secret may also come from a file.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        rows.append(f"| `GATE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def measurements_page() -> str:
    """The vocabulary of measurements and of defects."""
    rows = [
        "# Measurements",
        "",
        "The words that policies, reports and attestations use.",
        "",
        "| measurement | unit | per capability | meaning |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| `{name}` | {meaning.unit} | {'yes' if meaning.per_capability else 'no'} | {meaning.sentence} |"
        for name, meaning in MEANINGS.items()
    ]
    rows += [
        "",
        "## Defects",
        "",
        "What can be wrong with the files themselves, and what a policy makes of it unless it says otherwise.",
        "",
    ]
    rows += ["| defect | default |", "|---|---|", *(f"| `{code}` | {DEFECT_DEFAULTS[code]} |" for code in DefectCode)]
    return "\n".join(rows) + "\n"


def commands_page() -> str:
    """Every command with its arguments and options."""
    register(command_line)
    group = typer.main.get_command(command_line)
    return "\n".join(["# Command line", "", *_command(group, "basin-gate")]) + "\n"


def _command(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield f"## `{path}`"
    yield ""
    yield (command.help or "").strip()
    yield ""
    rows = [record for p in command.params if (record := p.get_help_record(context)) and "--help" not in record[0]]
    if not isinstance(command, click.Group) and rows:
        yield "| argument or option | meaning |"
        yield "|---|---|"
        for shown, meaning in rows:
            yield f"| `{shown}` | {' '.join(meaning.split())} |"
        yield ""
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _command(command.commands[name], f"{path} {name}")


def http_page() -> str:
    """Every route of the API, from its OpenAPI description."""
    description: Mapping[str, Any] = create_api_description()
    rows = ["# HTTP", "", "| method | path | meaning | answers |", "|---|---|---|---|"]
    for path, methods in sorted(description["paths"].items()):
        for method, operation in methods.items():
            answers = ", ".join(operation["responses"])
            meaning = " ".join((operation.get("description") or operation.get("summary") or "").split())
            rows.append(f"| {method.upper()} | `{path}` | {meaning} | {answers} |")
    return "\n".join(rows) + "\n"


def pages() -> Mapping[str, str]:
    """Every reference page by file name."""
    made = {
        "settings.md": settings_page(),
        "measurements.md": measurements_page(),
        "cli.md": commands_page(),
        "http.md": http_page(),
    }
    return {name: text.replace("\n\n", "\n\n" + NOTE, 1) for name, text in made.items()}


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
