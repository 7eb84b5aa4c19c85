"""Measuring a candidate: what one reading tells, then behaviour, then margins, and no more than the verdict needs."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from gate.domain.checkpoint import Layout
from gate.domain.errors import NotMeasurable
from gate.domain.evidence import (
    MEANINGS,
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
from gate.domain.prompts import MOST_KEPT, ChangedPrompts
from gate.domain.vocabulary import EXTRAS
from tasks.bench import Bench, Tell
from tasks.checkpoints import Located, SafetensorsWeights
from tasks.deltas import open_delta
from tasks.divergence_stage import STAGE as DIVERGENCE
from tasks.divergence_stage import diverge, increases
from tasks.estimates import curve_point, interval_of, measurement
from tasks.extra_stages import EXTRA_STAGES
from tasks.measurements.certificate import isotropic_certificate
from tasks.measurements.confidence import Interval
from tasks.measurements.direction import share_of_worst, standing
from tasks.measurements.headroom import headroom, line_curves
from tasks.measurements.memory import until_it_fits
from tasks.measurements.perturbation import DeltaSource, Moved, WeightSource, along, random_like
from tasks.measurements.retention import random_controls
from tasks.measurements.sensitivity import seeds_interval, sensitivity_ratio
from tasks.measuring import Measuring
from tasks.profiling import search_worst, worst_increase
from tasks.prompts_stage import keep_prompts
from tasks.retention_stage import retain

DECIDED = "not needed: the verdict was decided before"
MARGINS = (
    Name.RETENTION_RANDOM,
    Name.LOSS_INCREASE_Z,
    Name.LOSS_INCREASE_OF_WORST,
    Name.HEADROOM,
    Name.ADVERSARIAL_SENSITIVITY,
    Name.ADVERSARIAL_SENSITIVITY_RATIO,
)
ALIKE = "not measurable: random directions of this norm do not differ"
HARMLESS = "not measurable: nothing that was found within this norm raises the loss"
Decided = Callable[[Evidence], bool]


class Measured(NamedTuple):
    """What was measured, and the texts of prompts that changed, of which the evidence holds the digest."""

    evidence: Evidence
    prompts: ChangedPrompts


def measure_candidate(
    static: Evidence,
    located: Located,
    bench: Bench,
    profile: BasinProfile,
    decided: Decided,
    tell: Tell,
    prompts_kept: int = MOST_KEPT,
) -> Measured:
    """The static evidence completed by what the candidate does; stages stop once ``decided`` says so.

    What was left out is listed in ``unmeasured`` with its reason. Raises NotMeasurable where the candidate's
    tensors cannot take the place of the base's.
    """
    delta = open_delta(located, bench.weights)
    measuring = Measuring(
        bench,
        profile,
        delta,
        weights_of(located, bench, delta),
        static.plan,
        static.seed,
        tell,
        with_base(static, profile),
        prompts_kept=prompts_kept,
    )
    for name, stage in stages(static.plan).items():
        if measuring.plan.stop_when_decided and decided(measuring.evidence):
            break
        costed(measuring, name, stage)
    if measuring.retained and prompts_kept:
        costed(measuring, "prompts", keep_prompts)
    bench.restore()
    return _measured(measuring)


def _measured(m: Measuring) -> Measured:
    changed: dict[str, object] = {"provenance": m.bench.provenance()}
    if m.prompts.capabilities:
        changed["prompts_sha256"] = m.prompts.digest
    return Measured(_explained(m.evidence, m.profile).model_copy(update=changed), m.prompts)


def weights_of(located: Located, bench: Bench, delta: DeltaSource) -> WeightSource:
    """The candidate's weights in the base's shape. Raises NotMeasurable where they have another."""
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


def costed(measuring: Measuring, name: str, stage: Callable[[Measuring], None]) -> None:
    """Does a stage and adds what it took to the evidence."""
    begun, before = time.monotonic(), measuring.bench.forwards.rows
    _fitted(measuring, stage)
    cost = StageCost(
        stage=name,
        seconds=round(time.monotonic() - begun, 3),
        forwards=measuring.bench.forwards.rows - before,
        peak_bytes=peak_bytes(),
    )
    measuring.evidence = measuring.evidence.model_copy(update={"costs": (*measuring.evidence.costs, cost)})


def _fitted(measuring: Measuring, stage: Callable[[Measuring], None]) -> None:
    """The whole stage, from the start again with smaller batches where the device's memory did not do."""
    known = measuring.evidence

    def whole() -> None:
        measuring.evidence = known
        stage(measuring)

    until_it_fits(whole, measuring.bench.forwards, measuring.plan.batch_items)


def peak_bytes() -> int:
    """This process's largest resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def with_base(static: Evidence, profile: BasinProfile) -> Evidence:
    """The static evidence with the base's curves, and the candidate's position in its basin."""
    rms, norm = static.find(Name.DISPLACEMENT_RMS), static.find(Name.DISPLACEMENT_NORM)
    curves = [Curve(kind="noise", capability=c.capability, points=c.noise) for c in profile.capabilities if c.noise]
    found: list[Measurement] = []
    for capability in profile.capabilities:
        if norm is not None:
            found += certified(capability, norm.value)
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


def certified(base: CapabilityProfile, norm: float) -> Iterator[Measurement]:
    """The basin paper's certificate at this distance from the base, and whether it says anything."""
    noisy = [(point.at, interval_of(point.estimate)) for point in base.noise]
    found = isotropic_certificate(noisy, norm)
    if found is not None:
        yield measurement(Name.CERTIFIED_SCORE, base.capability, found.score)
        yield measurement(Name.CERTIFIED_RADIUS, base.capability, found.radius)
        vacuous = Estimate.exact(float(found.vacuous))
        yield Measurement(name=Name.CERTIFICATE_VACUOUS, capability=base.capability, estimate=vacuous)


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


def _control(m: Measuring) -> None:
    """Random directions of the candidate's own norm: what of the change is owed to size alone."""
    draws = m.plan.random_draws
    raised: dict[str, list[float]] = {name: [] for name in m.losses}

    def place(draw: int) -> None:
        m.tell("same size, random direction", 0.5 + 0.1 * draw / draws)
        along(m.bench.model, m.bench.weights, random_like(m.delta, m.seed, draw), 1.0)
        for name, increase in increases(m).items():
            raised[name].append(increase)

    found = random_controls(place, m.scorers(), m.items(m.plan.noise_items), m.outcomes(), draws=draws, alpha=m.alphas)
    m.add(*(measurement(Name.RETENTION_RANDOM, name, point.difference) for name, point in found.items()))
    for name, random in raised.items():
        placed = standing(m.losses[name].increase, random, m.alphas[name])
        _add_or_explain(m, Name.LOSS_INCREASE_Z, name, placed, ALIKE)


def _direction(m: Measuring) -> None:
    """The worst direction of the candidate's own norm, searched from the base."""
    norm = m.evidence.find(Name.DISPLACEMENT_NORM)
    assert norm is not None
    for place, (name, known) in enumerate(m.losses.items()):
        m.tell(f"same size, worst direction: {name}", 0.6 + 0.1 * place / len(m.losses))
        found = worst_increase(m.bench, m.plan, m.profile.seed, name, norm.value, known.items)
        _add_or_explain(m, Name.LOSS_INCREASE_OF_WORST, name, share_of_worst(known.increase, found), HARMLESS)


def _add_or_explain(m: Measuring, name: Name, capability: str, found: Interval | None, why_not: str) -> None:
    if found is None:
        m.leave_out(name, capability, why_not)
    else:
        m.add(measurement(name, capability, found))


def _line(m: Measuring) -> None:
    """Beyond the candidate along its own direction."""
    items = m.items(m.plan.line_items)
    steps = len({*m.plan.line_points} - {1.0})
    done = iter(range(steps))

    def place(t: float) -> None:
        m.tell("further along its own direction", 0.7 + 0.1 * next(done, steps) / steps)
        along(m.bench.model, m.bench.weights, m.delta, t)

    curves = line_curves(
        place,
        m.scorers(),
        items,
        m.outcomes(),
        points=m.plan.line_points,
        alpha=m.alphas,
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
        m.tell(f"searching the worst change: {name}", 0.8 + 0.2 * place / len(m.capabilities))
        # The profile's seed, not the candidate's: the ratio compares like with like.
        found = search_worst(m.bench, m.plan, m.profile.seed, name, m.profile.weight_norm, m.weights)
        m.add(
            measurement(Name.ADVERSARIAL_SENSITIVITY, name, seeds_interval(found.adversarial, m.alphas[name])),
            measurement(Name.RANDOM_SENSITIVITY, name, seeds_interval(found.random, m.alphas[name])),
            measurement(
                Name.ADVERSARIAL_SENSITIVITY_RATIO,
                name,
                sensitivity_ratio(found.adversarial, base.sensitivity, m.alphas[name]),
            ),
        )


STAGES: Mapping[str, Callable[[Measuring], None]] = {
    "divergence": diverge,
    "behaviour": retain,
    "control": _control,
    "direction": _direction,
    "line": _line,
    "sensitivity": _worst,
}
"""What is done, cheapest first."""


def stages(plan: Plan) -> Mapping[str, Callable[[Measuring], None]]:
    """What is done under a plan, in order: what every verdict has, then what the plan asks for beside."""
    return {**STAGES, **{extra.value: stage for extra, stage in EXTRA_STAGES.items() if extra in plan.also}}


def _explained(evidence: Evidence, profile: BasinProfile) -> Evidence:
    """With a reason for each measurement that is not there."""
    unmeasured = dict(evidence.unmeasured)
    # What the files say was measured before; what they did not say has its own reason.
    asked = [name for extra in evidence.plan.also if extra in EXTRA_STAGES for name in EXTRAS[extra]]
    for name in asked:
        if not MEANINGS[name].per_capability and evidence.find(name) is None:
            unmeasured.setdefault(name.value, DECIDED)
    each = [name for name in asked if MEANINGS[name].per_capability]
    for capability in profile.capabilities:
        reason = DECIDED if capability.measurable else capability.why_not
        for name in (*DIVERGENCE, Name.SCORE, Name.RETENTION, *MARGINS, *each):
            if evidence.find(name, capability.capability) is None:
                unmeasured.setdefault(f"{name}/{capability.capability}", reason)
    return evidence.model_copy(update={"unmeasured": unmeasured})
