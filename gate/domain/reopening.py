"""When a verdict is opened again though its policy is the same: what it was measured against is no longer what it was."""

from collections.abc import Iterable
from dataclasses import dataclass

from gate.domain.checkpoint import Base
from gate.domain.evaluation import Occasion


@dataclass(frozen=True, slots=True)
class Against:
    """What a verdict was measured against: a base by its name and bytes, and its suite as it was onboarded with.

    ``suite_digest`` is ``None`` where that was not kept; ``number`` is how often the version had been opened again.
    """

    base: str
    base_digest: str
    suite_digest: str | None
    number: int = 0


def occasion_for(against: Against, bases: Iterable[Base]) -> Occasion | None:
    """Why a version is to be evaluated again; ``None`` where its base and suite are still what they were."""
    base = next((each for each in bases if each.name == against.base), None)
    reason = _reason(against, base)
    if reason is None:
        return None
    return Occasion(
        number=against.number + 1,
        base=against.base,
        base_digest=base.digest if base else None,
        suite_digest=base.suite_digest if base else None,
        reason=reason,
    )


def _reason(against: Against, base: Base | None) -> str | None:
    if base is None:
        return f"its base {against.base} is no longer onboarded"
    if base.digest != against.base_digest:
        return f"its base {base.name} was onboarded anew with other files ({_change(against.base_digest, base.digest)})"
    if base.suite_digest and against.suite_digest and base.suite_digest != against.suite_digest:
        return f"the suite of its base {base.name} was changed ({_change(against.suite_digest, base.suite_digest)})"
    return None


def _change(before: str, now: str) -> str:
    return f"sha256 {now[:12]}…, measured with {before[:12]}…"
