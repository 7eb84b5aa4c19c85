"""``basin-gate selfcheck``: the gate checked by candidates of which it is known beforehand what has to become of them."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from gate.adapters.selfcheck_jobs import selfcheck_jobs
from gate.bootstrap import build_ledger, build_policies
from gate.domain.checkpoint import Base
from gate.domain.errors import InvalidInput, Unavailable
from gate.domain.policy import Policy
from gate.domain.records import JobRequest
from gate.domain.selfcheck import SOUND, Check, Control, ControlResult, sound
from gate.ports import Ledger
from gate.settings import settings

POLL_S = 0.5
out, err = Console(), Console(stderr=True)


def selfcheck(
    base: Annotated[
        str, typer.Option(help="Folder of a base, with --suite; or an onboarded base by name, every one without it.")
    ] = "",
    suite: Annotated[
        str, typer.Option(help="For a folder: a shipped suite's name, or a folder or YAML file of yours.")
    ] = "",
    policy: Annotated[
        Path | None, typer.Option(help="For a folder: policy file; the shipped default without it.")
    ] = None,
    policy_name: Annotated[str | None, typer.Option(help="Which policy, where there are several.")] = None,
    control: Annotated[
        list[Control] | None, typer.Option(help="Only this control (repeatable); all five without it.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="For a folder: keeps the base's profile for the next time.")
    ] = None,
    device: Annotated[str, typer.Option(help="For a folder: Torch device.")] = "auto",
    wait_minutes: Annotated[float, typer.Option(help="For onboarded bases: wait so long for the workers.")] = 60.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every result here.")] = None,
) -> None:
    """Plant known candidates on a base, have them judged, and say of each what was expected and what came.

    With --suite the base is a folder and everything happens here. Without it the bases are those onboarded, and the running
    service's workers do it. Exit status 0 only if all came as expected, 1 if anything did not.
    """
    chosen = tuple(control or Control)
    if suite and not (base and Path(base).is_dir()):
        raise InvalidInput(f"expected --base to be a folder beside --suite, found {base!r}")
    if suite:
        results = list(_on_folder(Path(base), suite, policy, policy_name, chosen, cache, device))
    elif policy is not None:
        raise InvalidInput(
            "expected --policy with a folder and its --suite, found no suite; the service has its own policies"
        )
    else:
        results = _by_workers(base, policy_name, chosen, 60 * wait_minutes)
    if json_file is not None:
        rows = [result.model_dump(mode="json") for result in results]
        json_file.write_text(json.dumps({"sound": sound(results), "results": rows}, indent=2) + "\n")
    for line in _told(results):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if sound(results) else 1)


def _on_folder(
    base: Path,
    suite: str,
    policy_file: Path | None,
    policy_name: str | None,
    controls: Sequence[Control],
    cache: Path | None,
    device: str,
) -> Iterator[ControlResult]:
    from tasks.assess import one_policy
    from tasks.controls.checking import check_control
    from tasks.examining import made_ready
    from tasks.progress_bar import progress_bar

    policy = one_policy(policy_file, policy_name)
    with TemporaryDirectory() as room, progress_bar(err) as telling:
        place = cache or Path(room)
        place.mkdir(parents=True, exist_ok=True)
        threads = settings().threads
        ready = made_ready(
            base, policy=policy, suite=suite, device=device, threads=threads, cache=place, tell=telling("")
        )
        for each in controls:
            yield check_control(each, ready, policy, seed=0, room=Path(room), tell=telling(f"{each}: "))


def _by_workers(
    name: str, policy_name: str | None, controls: Sequence[Control], patience_s: float
) -> list[ControlResult]:
    ledger = build_ledger(settings())
    bases = [each for each in ledger.bases() if name in ("", each.name)]
    policies = [p for p in build_policies(settings()).policies if policy_name in (None, p.name)]
    if not bases or not policies:
        what = f"a base {name!r}" if not bases else f"a policy {policy_name!r}"
        raise InvalidInput(f"expected {what} in force at this gate, found none; for a folder give its --suite too")
    occasion = f"asked-{time.time_ns()}"
    asked = [
        (base, policy, job)
        for base in bases
        for policy in policies
        for job in selfcheck_jobs(base, policy, occasion, settings().gpu_sizes())
        if job.payload["control"] in controls
    ]
    ledger.enqueue([job for _, _, job in asked], time.time())
    err.print(f"asked for {len(asked)} checks; waiting for the workers")
    _await(ledger, [job for _, _, job in asked], patience_s)
    return [_result(ledger, *each) for each in asked]


def _await(ledger: Ledger, jobs: Sequence[JobRequest], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while open_ones := [job for job in jobs if not _has_ended(ledger, job)]:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"expected {len(jobs)} checks within {patience_s / 60:g} minutes, found {len(open_ones)} still open; they go on: "
                "see that a gpu worker and the dispatcher run, with basin-gate doctor"
            )
        time.sleep(POLL_S)


def _has_ended(ledger: Ledger, job: JobRequest) -> bool:
    found = ledger.job_result(job.key)
    return found is not None and found[0] in ("done", "failed")


def _result(ledger: Ledger, base: Base, policy: Policy, job: JobRequest) -> ControlResult:
    """What the worker kept; where it failed, that and why."""
    from tasks.controls.checking import unchecked

    found = ledger.control(job.key)
    if found is not None:
        return found
    _, _, error = ledger.job_result(job.key) or ("", None, None)
    return unchecked(Control(job.payload["control"]), base, policy, f"the check failed: {error}")


def _told(results: Iterable[ControlResult]) -> Iterator[str]:
    grounds: dict[tuple[str, str, str], list[ControlResult]] = {}
    for result in results:
        grounds.setdefault((result.base_name, result.base_digest, result.policy), []).append(result)
    for (base, digest, policy), each in grounds.items():
        good = sum(result.check in SOUND for result in each)
        yield f"base {base} (sha256 {digest[:12]}), policy {policy}: {good} of {len(each)} as expected"
        for result in each:
            yield f"{result.check:<15}{result.control:<14}{_sentence(result)}"


def _sentence(result: ControlResult) -> str:
    if result.check is Check.NOT_APPLICABLE:
        return f"not applicable: {result.reason}"
    wanted = result.expected.replace("_", " ")
    came = result.outcome.replace("_", " ") if result.outcome else "no verdict"
    why = "" if result.check is Check.AS_EXPECTED else f": {result.reason}"
    return f"expected {wanted}, found {came} ({result.planted}){why}"
