"""A measured candidate compared further with its base, because a reviewer asked for more samples."""

from collections.abc import Sequence
from typing import NamedTuple

from gate.domain.evidence import BasinProfile, Evidence
from gate.domain.prompts import CapabilityPrompts, ChangedPrompts
from tasks.bench import Bench, Tell
from tasks.candidate import Measured, costed, weights_of
from tasks.checkpoints import Located
from tasks.deltas import open_delta
from tasks.measuring import Measuring
from tasks.prompts_stage import keep_prompts
from tasks.retention_stage import go_on

STAGE = "more samples"


class Wanted(NamedTuple):
    """What is asked for: at most how many more items of each capability, and the key of the evidence that comes of it."""

    items: int | None
    key: str


def extend_evidence(
    before: Measured,
    wanted: Wanted,
    located: Located,
    bench: Bench,
    profile: BasinProfile,
    tell: Tell,
    prompts_kept: int,
) -> Measured:
    """The evidence with its undecided comparisons gone on with, from where they stopped, on the items that come next.

    Everything else stays as it was measured; what this took is added to the costs. Raises NotMeasurable where the
    candidate's tensors cannot take the place of the base's.
    """
    evidence, delta = before.evidence, open_delta(located, bench.weights)
    measuring = Measuring(
        bench,
        profile,
        delta,
        weights_of(located, bench, delta),
        evidence.plan,
        evidence.seed,
        tell,
        evidence,
        prompts_kept=prompts_kept,
    )
    costed(measuring, STAGE, lambda m: go_on(m, wanted.items))
    if prompts_kept:
        costed(measuring, "prompts", keep_prompts)
    bench.restore()
    prompts = _prompts(before.prompts.capabilities, measuring.prompts.capabilities)
    changed = {
        "key": wanted.key,
        "provenance": _provenance(evidence, bench),
        "prompts_sha256": prompts.digest if prompts.capabilities else None,
    }
    return Measured(measuring.evidence.model_copy(update=changed), prompts)


def _prompts(before: Sequence[CapabilityPrompts], now: Sequence[CapabilityPrompts]) -> ChangedPrompts:
    """The texts of each capability, the newer where there are newer ones."""
    each = {kept.capability: kept for kept in (*before, *now)}
    return ChangedPrompts(capabilities=tuple(each.values()))


def _provenance(evidence: Evidence, bench: Bench) -> dict[str, str]:
    """What the numbers were made with, and beside it what was another for the samples that came later."""
    later = {name: value for name, value in bench.provenance().items() if evidence.provenance.get(name) != value}
    return {**evidence.provenance, **{f"{STAGE}: {name}": value for name, value in later.items()}}
