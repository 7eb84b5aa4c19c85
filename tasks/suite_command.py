"""``basin-gate suite``: what a suite asks, and what it can tell before anything is measured."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gate.look.printing import AsJson, say, told

if TYPE_CHECKING:
    from tasks.resolving import Resolution

suite_app = typer.Typer(no_args_is_help=True, help="Suites: what bases and fine-tunes are asked.")


@suite_app.command("show")
def show_suite(
    suite: Annotated[str, typer.Argument(help="A shipped suite's name, or a folder or YAML file of yours.")],
    policy: Annotated[Path | None, typer.Option(help="Policy file; the shipped default without it.")] = None,
    policy_name: Annotated[str | None, typer.Option(help="Which policy, where the file or folder has several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a suite's capabilities and the smallest fall that each can rule out; exit 1 where that is above a margin."""
    from tasks.assess import one_policy
    from tasks.resolving import resolutions
    from tasks.suites import load_suite

    loaded = load_suite(suite)
    found = resolutions(loaded, one_policy(policy, policy_name).plan)
    short = [each for each in found if not each.enough]
    if as_json:
        told(True, {"suite": loaded.name, "sha256": loaded.digest, "capabilities": [asdict(each) for each in found]})
    else:
        Console().print(_table(found))
        say(*(_too_few(each) for each in short))
    raise typer.Exit(1 if short else 0)


def _table(found: "Sequence[Resolution]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("capability", "scorer", "items", "margin", "rules out a fall of"):
        table.add_column(column)
    for each in found:
        table.add_row(each.capability, each.scorer, str(each.items), f"{each.margin:g}", _told(each))
    return table


def _too_few(each: "Resolution") -> str:
    return (
        f"{each.capability}: expected items that can rule out a fall by the margin {each.margin:g}, found {each.compared}, "
        f"which rule out {each.smallest:g}: no fine-tune can pass; give it {each.wanted} items, or a wider margin"
    )


def _told(each: "Resolution") -> str:
    if each.smallest is None:
        return "by how much its items vary"
    return f"{each.smallest:.2g}" + ("" if each.compared == each.items else f" ({each.compared} items at first)")
