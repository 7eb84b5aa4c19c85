"""The bench's commands, joined to ``basin-gate`` through an entry point: assess, base, calibrate, demo, selfcheck, suite."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gate.bootstrap import build_ledger, build_policies, migrate_ledger
from gate.domain.evidence import Evidence
from gate.domain.prompts import ChangedPrompts
from gate.domain.verdict import Outcome, Verdict
from gate.look.printing import AsJson, say, told
from gate.settings import settings
from tasks.calibrate_command import calibrate_command
from tasks.selfcheck_command import selfcheck
from tasks.suite_command import suite_app

EXIT = {Outcome.APPROVED: 0, Outcome.BLOCKED: 1, Outcome.NEEDS_REVIEW: 3, Outcome.ERROR: 2}
out, err = Console(), Console(stderr=True)
base_app = typer.Typer(no_args_is_help=True, help="Bases: what fine-tunes are measured against.")


def register(app: typer.Typer) -> None:
    """Adds the bench's commands to the command line; ModuleNotFoundError where there is no torch to do them with."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("torch")
    app.add_typer(base_app, name="base")
    app.add_typer(suite_app, name="suite")
    app.command("assess")(assess_command)
    app.command("demo")(demo_command)
    app.command("calibrate")(calibrate_command)
    app.command("selfcheck")(selfcheck)


def assess_command(
    base: Annotated[Path, typer.Option(help="Folder of the base.", exists=True, file_okay=False)],
    candidate: Annotated[Path, typer.Option(help="Folder of the fine-tune.", exists=True, file_okay=False)],
    policy: Annotated[Path | None, typer.Option(help="Policy file; the shipped default without it.")] = None,
    policy_name: Annotated[str | None, typer.Option(help="Which policy, where the file or folder has several.")] = None,
    suite: Annotated[str, typer.Option(help="Suite: a shipped name, or a folder or YAML file of yours.")] = "staged",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write evidence and verdict here.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write the report here: .html in one file, else Markdown with pictures beside it."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the base's profile for the next time.")] = None,
    device: Annotated[str, typer.Option(help="Torch device.")] = "auto",
) -> None:
    """Measure and judge a folder against its base; exit 0 approved, 1 blocked, 3 needs review, 2 error."""
    from tasks.assess import assess, one_policy

    chosen = one_policy(policy, policy_name)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("loading", total=1.0)
        evidence, verdict, prompts = assess(
            base,
            candidate,
            policy=chosen,
            suite=suite,
            device=device,
            threads=settings().threads,
            cache=cache,
            tell=lambda stage, fraction, _sure=None: progress.update(bar, description=stage, completed=fraction),
            prompts_kept=settings().prompts_kept,
        )
    if json_file is not None:
        json_file.write_text(document(evidence, verdict, prompts))
    if report is not None:
        write_report(report, evidence, verdict, prompts, candidate.name)
    out.print(verdict.outcome.replace("_", " "), style="bold", end=": ")
    out.print(verdict.reason, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT[verdict.outcome])


def document(evidence: Evidence, verdict: Verdict, prompts: ChangedPrompts) -> str:
    """Evidence, verdict and changed prompts as one JSON document, the same that a service's run holds."""
    parts = {"evidence": evidence, "verdict": verdict, "prompts": prompts}
    return "{" + ",\n".join(f'"{name}": {part.model_dump_json()}' for name, part in parts.items()) + "}\n"


def write_report(path: Path, evidence: Evidence, verdict: Verdict, prompts: ChangedPrompts, subject: str) -> None:
    """Writes the report: all in one where it is to be HTML, else Markdown with its pictures beside it."""
    from gate.pages.html_report import html
    from gate.pages.plots import pictures
    from gate.pages.report import markdown

    if path.suffix.lower() in (".html", ".htm"):
        path.write_text(html(verdict, evidence, subject, prompts), encoding="utf-8")
        return
    shown = {f"{path.stem}-{name}": image for name, image in pictures(evidence).items()}
    for name, image in shown.items():
        (path.parent / name).write_bytes(image)
    path.write_text(markdown(verdict, evidence, subject, tuple(shown), prompts), encoding="utf-8")


@base_app.command("add")
def add_base(
    source: Annotated[str, typer.Argument(help="models:/NAME/VERSION, or a folder.")],
    suite: Annotated[
        str, typer.Option(help="Suite for its fine-tunes: a shipped name, or a folder or YAML file of yours.")
    ],
    name: Annotated[str, typer.Option(help="What to call it; the source without it.")] = "",
    reference: Annotated[list[str] | None, typer.Option(help="Further text that means this base (repeatable).")] = None,
    ancestor: Annotated[
        str, typer.Option(help="The unaligned model that it was aligned from: models:/NAME/VERSION, or a folder.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Onboard a base: hash it, refuse what is unsound, and have its profile made."""
    from tasks.bases import request_profiles, take_in

    migrate_ledger(settings())
    ledger = build_ledger(settings())
    meant = tuple(reference or ())
    base = take_in(settings(), ledger, source, suite=suite, name=name or source, references=meant, ancestor=ancestor)
    asked = request_profiles(ledger, base, build_policies(settings()), settings().gpu_sizes())
    document = {"name": base.name, "sha256": base.digest, "profiles_asked": asked}
    told(as_json, document, f"onboarded {base.name}, sha256 {base.digest}; {asked} profile(s) asked for")


@base_app.command("apply")
def apply_bases(
    file: Annotated[Path, typer.Argument(help="YAML file with a list `bases`.", exists=True, dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Onboard the bases of a file; what is onboarded as described there is left alone."""
    from tasks.bases import read_wanted, request_profiles, take_in

    wanted = read_wanted(file)
    migrate_ledger(settings())
    ledger, policies = build_ledger(settings()), build_policies(settings())
    onboarded, done = ledger.bases(), list[Mapping[str, object]]()
    for base in wanted:
        name = base.name or base.source
        if any(base.is_met_by(known) for known in onboarded):
            done.append({"name": name, "changed": False})
            if not as_json:
                say(f"unchanged {name}")
            continue
        taken = take_in(
            settings(),
            ledger,
            base.source,
            suite=base.suite,
            name=name,
            references=base.references,
            ancestor=base.ancestor,
        )
        asked = request_profiles(ledger, taken, policies, settings().gpu_sizes())
        done.append({"name": name, "changed": True, "sha256": taken.digest, "profiles_asked": asked})
        if not as_json:
            say(f"onboarded {name}, sha256 {taken.digest}; {asked} profile(s) asked for")
    told(as_json, {"bases": done})


@base_app.command("ls")
def list_bases(as_json: AsJson = False) -> None:
    """List the onboarded bases."""
    bases = build_ledger(settings()).bases()
    if as_json:
        told(as_json, {"bases": [b.model_dump(mode="json") for b in bases]})
        return
    for base in bases:
        sys.stdout.write(f"{base.name}\t{base.digest}\t{base.suite}\t{base.source}\n")


def demo_command(
    model: Annotated[str, typer.Option(help="staged (sub-million parameters, minutes) or smollm2 (135 M).")] = "staged",
    state: Annotated[
        Path | None, typer.Option(help="Folder to keep everything in; a temporary one without it.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Leave it running until Ctrl-C.")] = False,
    limit_minutes: Annotated[float, typer.Option(help="Give up after this long.")] = 30.0,
) -> None:
    """Run everything on this machine and watch real fine-tunes being approved and blocked."""
    from tasks.demo import run_demo

    raise typer.Exit(run_demo(model, state, keep, 60 * limit_minutes))
