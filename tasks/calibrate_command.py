"""``basin-gate calibrate``: limits for one base, learned from fine-tunes of it that are known to be good and bad."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import yaml
from rich.console import Console

from gate.domain.calibration import Calibrated, Separation, calibrate, calibrated_rules
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence
from gate.domain.limits import needed
from gate.domain.policy import Policy, Rule
from gate.settings import settings

err = Console(stderr=True)
WIDTH = 110


def calibrate_command(
    good: Annotated[
        list[Path],
        typer.Option(
            help="Fine-tune known to be good: a folder, what assess --json wrote, or a folder of such (repeatable)."
        ),
    ],
    bad: Annotated[list[Path], typer.Option(help="The same, known to be bad (repeatable).")],
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the base; needed where folders are to be measured.", exists=True, file_okay=False),
    ] = None,
    suite: Annotated[str, typer.Option(help="Suite: a shipped name, or a folder or YAML file of yours.")] = "staged",
    policy: Annotated[Path | None, typer.Option(help="Policy file; the shipped default without it.")] = None,
    policy_name: Annotated[str | None, typer.Option(help="Which policy, where the file or folder has several.")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Rule to calibrate (repeatable); without it each that holds back and depends on the base."),
    ] = None,
    false_block: Annotated[
        float, typer.Option(help="Part of good fine-tunes that these rules together may hold back.")
    ] = 0.05,
    alpha: Annotated[float, typer.Option(help="Chance that the promise does not hold.")] = 0.05,
    match: Annotated[str, typer.Option(help="CEL expression of the versions that the new policy is for.")] = "",
    name: Annotated[str, typer.Option(help="The new policy's name; the old one's without it.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the policy here; printed without it.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write limits and separation here.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the base's profile for the next time.")] = None,
    device: Annotated[str, typer.Option(help="Torch device.")] = "auto",
) -> None:
    """Learn the limits that depend on the base from fine-tunes of it, and write the policy with them.

    The good ones set the limits; the bad ones show what these catch. Exit status 1, and no policy, where the good ones are
    too few for the stated rate: the number that is needed is told.
    """
    from tasks.assess import one_policy
    from tasks.calibrating import members

    old = one_policy(policy, policy_name)
    rules = calibrated_rules(old, rule or ())
    good, bad = members(good), members(bad)
    if len(good) < (least := needed(false_block, alpha, len(rules))):
        # Before anything is measured, which can take hours.
        err.print(
            f"refused: expected at least {least} good fine-tunes for {len(rules)} rules and a rate of {false_block:g}, found {len(good)}",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    known = _gathered(good, bad, old, rules, base, suite, device, cache)
    found = calibrate(old, rules, *known, rate=false_block, alpha=alpha, day=datetime.now(UTC).date())
    if json_file is not None:
        json_file.write_text(json.dumps(found.model_dump(mode="json", exclude={"policy"}), indent=2) + "\n")
    for line in _told(found):
        err.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.policy is None:
        raise typer.Exit(1)
    text = fragment(_renamed(found.policy, name, match), found, false_block, alpha)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")


def _gathered(
    good: Sequence[Path],
    bad: Sequence[Path],
    policy: Policy,
    rules: Sequence[Rule],
    base: Path | None,
    suite: str,
    device: str,
    cache: Path | None,
) -> tuple[list[Evidence], list[Evidence]]:
    from tasks.calibrating import evidence_of
    from tasks.examining import Ready, made_ready
    from tasks.progress_bar import progress_bar

    with TemporaryDirectory() as room, progress_bar(err) as telling:
        place = cache or Path(room)
        place.mkdir(parents=True, exist_ok=True)

        @lru_cache(maxsize=1)
        def ready() -> Ready:
            if base is None:
                raise InvalidInput(
                    "expected --base beside folders that are to be measured, found only evidence files to do without"
                )
            return made_ready(
                base,
                policy=policy,
                suite=suite,
                device=device,
                threads=settings().threads,
                cache=place,
                tell=telling(""),
            )

        def known(paths: Sequence[Path]) -> list[Evidence]:
            return [evidence_of(each, policy, rules, ready, telling(f"{each.name}: ")) for each in paths]

        return known(good), known(bad)


def fragment(policy: Policy, found: Calibrated, rate: float, alpha: float) -> str:
    """The policy as a YAML file that `policy lint` takes, with what its limits rest on before it for people."""
    calibrated = next(rule.calibration for rule in policy.rules if rule.calibration is not None)
    lines = [
        f"Limits of {', '.join(calibrated.rules)} calibrated on {calibrated.day} by basin-gate calibrate.",
        f"They hold for base sha256 {calibrated.base_digest[:12]}… with this suite and plan; for any other, these rules decide nothing.",
        f"Promise, at confidence {1 - alpha:.3g}: of good fine-tunes like the {calibrated.good} used, they hold back at most {rate:.3g}.",
        *_told(found),
    ]
    document = policy.model_dump(mode="json", exclude_unset=True)
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=WIDTH)
    return "".join(f"# {line}\n" for line in lines) + body


def _renamed(policy: Policy, name: str, match: str) -> Policy:
    changed = {key: value for key, value in (("name", name), ("match", match)) if value}
    return Policy.model_validate(policy.model_dump(mode="json", exclude_unset=True) | changed)


def _told(found: Calibrated) -> Iterator[str]:
    if found.refused:
        yield f"refused: {found.refused}"
    for limit in found.suggestions:
        if limit.limit is not None:
            yield f"{limit.rule}: {limit.key} {limit.limit:.6g} (now {limit.now}), learned from {limit.n} good fine-tunes"
    for separation in found.separations:
        yield _parted(separation)


def _parted(found: Separation) -> str:
    good, bad = (
        f"{held} of {n} {kind} ({low:.1%} to {high:.1%})"
        for held, n, kind, (low, high) in (
            (found.good_held, found.good, "good", found.good_interval),
            (found.bad_held, found.bad, "bad", found.bad_interval),
        )
    )
    lacking = f"; {found.unmeasured} of the bad for want of the measurement" if found.unmeasured else ""
    return f"{found.rule or 'together'} would hold back {good} and {bad}{lacking}"
