"""One candidate on the bench: what the stages of its measurement share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gate.domain.evidence import BasinProfile, CapabilityProfile, Curve, Evidence, Measurement, Name, Plan
from gate.domain.prompts import MOST_KEPT, ChangedPrompts
from tasks.bench import Bench, Tell
from tasks.measurements.benchmark import ScoreItems, Scores
from tasks.measurements.perturbation import DeltaSource, WeightSource
from tasks.measurements.retention import Retention


@dataclass(frozen=True, slots=True)
class Losses:
    """A capability's loss per token of some items, and by how much the candidate raises their mean."""

    items: tuple[int, ...]
    base: Scores
    increase: float


@dataclass(slots=True)
class Measuring:
    """One candidate on the bench: everything the stages share, and the evidence as it grows."""

    bench: Bench
    profile: BasinProfile
    delta: DeltaSource
    weights: WeightSource
    plan: Plan
    seed: int
    tell: Tell
    evidence: Evidence
    retained: dict[str, Retention] = field(default_factory=dict)
    losses: dict[str, Losses] = field(default_factory=dict)
    prompts_kept: int = MOST_KEPT
    prompts: ChangedPrompts = field(default_factory=ChangedPrompts)

    @property
    def capabilities(self) -> Mapping[str, CapabilityProfile]:
        """The capabilities the base has, in the suite's order."""
        return {c.capability: c for c in self.profile.capabilities if c.measurable}

    @property
    def alphas(self) -> Mapping[str, float]:
        """Each capability's share of the plan's error probability."""
        return self.bench.suite.alphas(self.plan.alpha)

    def scorers(self) -> Mapping[str, ScoreItems]:
        """The scorers of those capabilities."""
        each = self.bench.scorers(self.plan.batch_items)
        return {name: each[name] for name in self.capabilities}

    def items(self, most: int) -> Mapping[str, Sequence[int]]:
        """At most ``most`` items of each capability, of those that the comparison with the base already used."""
        return {name: sorted(self.retained[name].items[:most]) for name in self.capabilities}

    def known(self, items: Mapping[str, Sequence[int]]) -> Mapping[str, Scores]:
        """The candidate's outcomes on these items, as the comparison with the base found them."""
        found = {name: dict(zip(r.items, r.outcomes, strict=True)) for name, r in self.retained.items()}
        return {name: np.array([found[name][item] for item in chosen]) for name, chosen in items.items()}

    def outcomes(self) -> Mapping[str, Sequence[float]]:
        """The base's outcomes of all items."""
        return {name: base.outcomes for name, base in self.capabilities.items()}

    def add(self, *found: Measurement, curves: Iterable[Curve] = ()) -> None:
        """Adds to the evidence."""
        changed = {"measurements": (*self.evidence.measurements, *found), "curves": (*self.evidence.curves, *curves)}
        self.evidence = self.evidence.model_copy(update=changed)

    def leave_out(self, name: Name, capability: str | None, why: str) -> None:
        """Says why a measurement is not there."""
        key = name.value if capability is None else f"{name}/{capability}"
        unmeasured = {**self.evidence.unmeasured, key: why}
        self.evidence = self.evidence.model_copy(update={"unmeasured": unmeasured})
