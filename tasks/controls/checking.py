"""One control planted, measured and judged as any candidate is, and held against what had to come."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from gate.domain.checkpoint import Base
from gate.domain.errors import InvalidInput, NotMeasurable
from gate.domain.policy import Policy
from gate.domain.selfcheck import Check, Control, ControlResult, checked, expected
from tasks.bench import Tell
from tasks.controls.planting import Ground, plant
from tasks.examining import Ready, named_by, quiet


def check_control(
    control: Control, ready: Ready, policy: Policy, seed: int, room: Path, tell: Tell = quiet
) -> ControlResult:
    """Plants a control in a new folder inside ``room``, which is removed again, and says what became of it.

    The seed decides everything random in the control; the measurement has its own, as for any candidate.
    """
    begun = time.monotonic()
    blank = unchecked(control, ready.bench.base, policy, "nothing was planted")
    with TemporaryDirectory(dir=room) as place:
        try:
            tell("planting", 0.0)
            planted = plant(control, Ground(ready.bench, ready.profile, seed), Path(place) / "candidate")
        except (NotMeasurable, InvalidInput) as error:
            ready.bench.restore()
            return blank.model_copy(update={"reason": str(error), "seconds": _since(begun)})
        if planted.folder is None:
            found = {"check": Check.NOT_APPLICABLE, "planted": "nothing", "reason": planted.what}
            return blank.model_copy(update=found | {"seconds": _since(begun)})
        lineage = named_by("the check of the gate", ready.bench.base)
        verdict = ready.examine(
            planted.folder, policy, lineage, kind=f"control:{control}", tell=tell, prompts_kept=0
        ).verdict
    return blank.model_copy(
        update={
            "planted": planted.what,
            "outcome": verdict.outcome,
            "check": checked(blank.expected, verdict.outcome),
            "reason": verdict.reason,
            "verdict": verdict,
            "at": verdict.judged_at,
            "seconds": _since(begun),
        }
    )


def unchecked(control: Control, base: Base, policy: Policy, why: str) -> ControlResult:
    """A control of which nothing can be said, and why."""
    return ControlResult(
        control=control,
        base_name=base.name,
        base_digest=base.digest,
        suite=base.suite,
        policy=policy.name,
        policy_digest=policy.digest,
        planted="nothing",
        expected=expected(control, policy),
        check=Check.FAILED,
        reason=why,
        at=int(time.time()),
        seconds=0.0,
    )


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)
