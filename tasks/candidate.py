"""Measuring a candidate: behaviour first, then margins, and no more than the verdict still needs."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gate.domain.checkpoint import Layout
from gate.domain.errors import NotMeasurable
from gate.domain.evidence import (
    BasinProfile,
    CapabilityProfile,
    Curve,
    Estimate,
    Evidence,
    Measurement,
    Name,
    Plan,
    StageCost,
)
from tasks.bench import Bench, Tell, shared_alpha
from tasks.checkpoints import Located, SafetensorsWeights
from tasks.deltas import open_delta
from tasks.estimates import curve_point, measurement
from tasks.measurements.benchmark import ScoreItems, Scores
from tasks.measurements.headroom import headroom, line_curves
from tasks.measurements.perturbation import DeltaSource, Moved, WeightSource, along, random_like, write_weights
from tasks.measurements.retention import Retention, measure_retention, random_controls
from tasks.measurements.sensitivity import seeds_interval, sensitivity_ratio
from tasks.profiling import search_worst

DECIDED = "not needed: the verdict was decided before"
MARGINS = (Name.RETENTION_RANDOM, Name.HEADROOM, Name.ADVERSARIAL_SENSITIVITY, Name.ADVERSARIAL_SENSITIVITY_RATIO)
Decided = Callable[[Evidence], bool]


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

    @property
    def capabilities(self) -> Mapping[str, CapabilityProfile]:
        """The capabilities the base has, in the suite's order."""
        return {c.capability: c for c in self.profile.capabilities if c.measurable}

    @property
    def alpha(self) -> float:
        """One capability's share of the plan's error probability."""
        return shared_alpha(self.plan.alpha, len(self.profile.capabilities))

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


def measure_candidate(
    static: Evidence, located: Located, bench: Bench, profile: BasinProfile, decided: Decided, tell: Tell
) -> Evidence:
    """The static evidence completed by what the candidate does; stages stop once ``decided`` says so.

    What was left out is listed in ``unmeasured`` with its reason. Raises NotMeasurable where the candidate's
    tensors cannot take the place of the base's.
    """
    delta = open_delta(located, bench.weights)
    measuring = Measuring(
        bench,
        profile,
        delta,
        _weights(located, bench, delta),
        static.plan,
        static.seed,
        tell,
        with_base(static, profile),
    )
    for name, stage in (("behaviour", _retention), ("control", _control), ("line", _line), ("sensitivity", _worst)):
        if measuring.plan.stop_when_decided and decided(measuring.evidence):
            break
        _costed(measuring, name, stage)
    bench.restore()
    return _explained(measuring.evidence, profile).model_copy(update={"provenance": bench.provenance()})


def _weights(located: Located, bench: Bench, delta: DeltaSource) -> WeightSource:
    if located.layout is Layout.ADAPTER:
        return Moved(bench.weights, delta, 1.0)
    own = SafetensorsWeights.open(located)
    ours = {name: bench.weights.entry(name).shape for name in bench.weights.names()}
    theirs = {name: own.entry(name).shape for name in own.names()}
    if ours != theirs:
        differing = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        raise NotMeasurable(
            f"expected the base's tensors and shapes, found others at {differing[:3]}; onboard a base of this shape"
        )
    return own


def _costed(measuring: Measuring, name: str, stage: Callable[[Measuring], None]) -> None:
    begun, before = time.monotonic(), measuring.bench.forwards.rows
    stage(measuring)
    cost = StageCost(
        stage=name,
        seconds=round(time.monotonic() - begun, 3),
        forwards=measuring.bench.forwards.rows - before,
        peak_bytes=peak_bytes(),
    )
    measuring.evidence = measuring.evidence.model_copy(update={"costs": (*measuring.evidence.costs, cost)})


def peak_bytes() -> int:
    """This process's largest resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def with_base(static: Evidence, profile: BasinProfile) -> Evidence:
    """The static evidence with the base's curves, and the candidate's position in its basin."""
    rms = static.find(Name.DISPLACEMENT_RMS)
    curves = [Curve(kind="noise", capability=c.capability, points=c.noise) for c in profile.capabilities if c.noise]
    found: list[Measurement] = []
    for capability in profile.capabilities:
        if capability.basin_sigma is None:
            continue
        found.append(
            Measurement(name=Name.BASIN_SIGMA, capability=capability.capability, estimate=capability.basin_sigma)
        )
        if rms is not None:
            position = basin_position(rms.value, capability.basin_sigma)
            found.append(Measurement(name=Name.BASIN_POSITION, capability=capability.capability, estimate=position))
    changed = {"measurements": (*static.measurements, *found), "curves": (*static.curves, *curves)}
    return static.model_copy(update=changed)


def basin_position(rms: float, sigma: Estimate) -> Estimate:
    """The move's RMS over the basin's edge; an edge beyond the largest noise tried gives 0 as the lower bound.

    >>> edge = Estimate(value=0.02, lower=0.01, upper=0.04, alpha=0.05)
    >>> found = basin_position(0.01, edge)
    >>> found.lower, found.value, found.upper
    (0.25, 0.5, 1.0)
    """
    return Estimate(
        value=rms / sigma.value,
        lower=0.0 if sigma.upper is None else rms / sigma.upper,
        upper=rms / sigma.lower if sigma.lower else None,
        alpha=sigma.alpha,
        n=sigma.n,
        method="rms over basin sigma",
    )


def _retention(m: Measuring) -> None:
    write_weights(m.bench.model, m.weights)
    scorers = m.scorers()
    for place, (name, base) in enumerate(m.capabilities.items()):
        m.tell(f"comparing with the base: {name}", 0.5 * place / len(m.capabilities))
        found = measure_retention(
            scorers[name],
            base.outcomes,
            capability=name,
            margin=base.margin,
            alpha=m.alpha,
            seed=m.seed,
            batch=m.plan.batch_items,
            stop_when_decided=m.plan.stop_when_decided,
        )
        m.retained[name] = found
        m.add(measurement(Name.SCORE, name, found.score), measurement(Name.RETENTION, name, found.difference))


def _control(m: Measuring) -> None:
    """Random directions of the candidate's own norm: what of the change is owed to size alone."""
    draws = m.plan.random_draws

    def place(draw: int) -> None:
        m.tell("same size, random direction", 0.5 + 0.1 * draw / draws)
        along(m.bench.model, m.bench.weights, random_like(m.delta, m.seed, draw), 1.0)

    found = random_controls(place, m.scorers(), m.items(m.plan.noise_items), m.outcomes(), draws=draws, alpha=m.alpha)
    m.add(*(measurement(Name.RETENTION_RANDOM, name, point.difference) for name, point in found.items()))


def _line(m: Measuring) -> None:
    """Beyond the candidate along its own direction."""
    items = m.items(m.plan.line_items)
    steps = len({*m.plan.line_points} - {1.0})
    done = iter(range(steps))

    def place(t: float) -> None:
        m.tell("further along its own direction", 0.6 + 0.15 * next(done, steps) / steps)
        along(m.bench.model, m.bench.weights, m.delta, t)

    curves = line_curves(
        place,
        m.scorers(),
        items,
        m.outcomes(),
        points=m.plan.line_points,
        alpha=m.alpha,
        known=m.known(items),
    )
    for name, points in curves.items():
        m.add(
            measurement(Name.HEADROOM, name, headroom(points, m.capabilities[name].margin)),
            curves=[Curve(kind="line", capability=name, points=tuple(curve_point(p) for p in points))],
        )


def _worst(m: Measuring) -> None:
    """The worst small weight change around the candidate, against the base's, same ball, starts and items."""
    for place, (name, base) in enumerate(m.capabilities.items()):
        m.tell(f"searching the worst change: {name}", 0.75 + 0.25 * place / len(m.capabilities))
        # The profile's seed, not the candidate's: the ratio compares like with like.
        found = search_worst(m.bench, m.plan, m.profile.seed, name, m.profile.weight_norm, m.weights)
        m.add(
            measurement(Name.ADVERSARIAL_SENSITIVITY, name, seeds_interval(found.adversarial, m.alpha)),
            measurement(Name.RANDOM_SENSITIVITY, name, seeds_interval(found.random, m.alpha)),
            measurement(
                Name.ADVERSARIAL_SENSITIVITY_RATIO,
                name,
                sensitivity_ratio(found.adversarial, base.sensitivity, m.alpha),
            ),
        )


def _explained(evidence: Evidence, profile: BasinProfile) -> Evidence:
    """With a reason for each measurement that is not there."""
    unmeasured = dict(evidence.unmeasured)
    for capability in profile.capabilities:
        reason = DECIDED if capability.measurable else capability.why_not
        for name in (Name.SCORE, Name.RETENTION, *MARGINS):
            if evidence.find(name, capability.capability) is None:
                unmeasured.setdefault(f"{name}/{capability.capability}", reason)
    return evidence.model_copy(update={"unmeasured": unmeasured})
