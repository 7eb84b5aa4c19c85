"""``basin-gate audit verify | export``: the ledger's hash-chained record of who did what."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from gate.domain.records import AuditEntry
from gate.ports import Ledger
from gate.settings import settings

audit_app = typer.Typer(no_args_is_help=True, help="The record of who did what.")
PAGE = 1000


@audit_app.command()
def verify(
    expect: Annotated[
        str,
        typer.Option(help="Hash that an entry must have: one kept elsewhere shows an end cut off, or all rewritten."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every entry against the one before it. Exit status 1 where the chain is broken; prints the last hash."""
    ledger = _ledger()
    broken = ledger.audit_break()
    count, last, seen = 0, "", not expect
    for entry in entries(ledger):
        count, last, seen = count + 1, entry.hash, seen or entry.hash == expect
    told = {"entries": count, "last_hash": last, "broken_at": broken, "expected_hash_found": seen}
    sys.stdout.write(json.dumps(told) + "\n" if as_json else f"{_sentence(broken, seen, count, last)}\n")
    raise typer.Exit(0 if broken is None and seen else 1)


@audit_app.command()
def export(after: Annotated[int, typer.Option(min=0, help="Only entries after this number.")] = 0) -> None:
    """Print the entries as lines of JSON, oldest first, each with its hash and the one before it."""
    for entry in entries(_ledger(), after):
        sys.stdout.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")


def entries(ledger: Ledger, after: int = 0) -> Iterator[AuditEntry]:
    """Every entry after a number, oldest first."""
    while page := ledger.audit_entries(after, PAGE):
        yield from page
        after = page[-1].seq


def _sentence(broken: int | None, seen: bool, count: int, last: str) -> str:
    if broken is not None:
        return f"broken at entry {broken}: it was changed, or one before it removed; compare with an earlier export"
    if not seen:
        return "the chain fits, but the expected hash is not in it: entries were cut off, or the record written anew"
    return f"{count} entries, unbroken; last hash {last}"


def _ledger() -> Ledger:
    # Here, so that the command line starts where there is neither a database nor a broker to talk to.
    from gate.bootstrap import build_ledger

    return build_ledger(settings())
