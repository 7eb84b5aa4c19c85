"""What a candidate is measured for only where the plan's ``also`` asks: none of it slows a verdict that does not."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from gate.domain.evidence import LayerDisplacement, Name
from gate.domain.vocabulary import Extra
from tasks.alignment_stage import measure_alignment
from tasks.deltas import LoraDelta
from tasks.divergence_stage import NO_NUMBER, losses_of
from tasks.estimates import measurement
from tasks.measurements.basin import on_items
from tasks.measurements.benchmark import Scores, losses_together
from tasks.measurements.input_sensitivity import input_sensitivity
from tasks.measurements.memory import fitting
from tasks.measurements.merging import drawn_mixture, merge_radius, mixture_scores
from tasks.measurements.perturbation import Moved, WeightSource, along, write_weights
from tasks.measurements.robustness import AdaptiveNoise, area_change, areas, mean_area
from tasks.measurements.sensitivity import seeds_interval, sensitivity_ratio
from tasks.measurements.sharpness import critical_sharpness
from tasks.measurements.spectrum import Energy, dense_energy, low_rank_energy, stable_rank, top_energy
from tasks.measurements.tamper import Attack, tamper_radius, tamper_ratio
from tasks.measuring import Measuring
from tasks.refusal_stage import measure_refusal
from tasks.tampering import tamper
from tasks.weights import block_of

NOTHING_MOVED = "not measurable: no matrix differs from the base's"
NO_FLOOR = "not measurable: on these items the base scores no more than its margin"
WITHSTOOD = "not measurable: an attack on the base failed, so that there is no radius to compare with"


def measure_spectrum(m: Measuring) -> None:
    """Over how many directions the update is spread, and the largest singular value of each of its matrices."""
    m.tell("counting the update's directions", 1.0)
    names = [name for name in m.delta.names() if len(m.bench.weights.entry(name).shape) > 1]
    energies = dict(zip(names, _energies(m, names), strict=True))
    layers = tuple(_with_spectrum(layer, energies.get(layer.tensor)) for layer in m.evidence.layers)
    m.evidence = m.evidence.model_copy(update={"layers": layers})
    for measured, of in ((Name.STABLE_RANK, stable_rank), (Name.TOP_ENERGY, top_energy)):
        found = of(energies.values(), m.plan.alpha)
        if found is None:
            m.leave_out(measured, None, NOTHING_MOVED)
        else:
            m.add(measurement(measured, None, found))


def _with_spectrum(layer: LayerDisplacement, energy: Energy | None) -> LayerDisplacement:
    if energy is None or not energy.total:
        return layer
    largest = {"spectral_norm": math.sqrt(energy.top), "spectral_norm_at_most": math.sqrt(energy.top_at_most)}
    return layer.model_copy(update=largest)


def _energies(m: Measuring, names: list[str]) -> Iterator[Energy]:
    for name in names:
        if isinstance(m.delta, LoraDelta) and m.delta.is_low_rank(name):
            yield low_rank_energy(*m.delta.factors(name))
        else:
            yield dense_energy(m.delta.delta(name), m.seed, name, m.plan.alpha / len(names))


def measure_sharpness(m: Measuring) -> None:
    """How soon a further step along the update raises the candidate's loss."""
    for name in m.capabilities:
        if name not in m.losses:
            m.leave_out(Name.CRITICAL_SHARPNESS, name, NO_NUMBER)
            continue
        m.tell(f"going on along the update: {name}", 1.0)
        items = m.losses[name].items
        found = critical_sharpness(partial(_loss_at, m, name, items), len(items))
        m.add(measurement(Name.CRITICAL_SHARPNESS, name, found))


def _loss_at(m: Measuring, capability: str, items: Sequence[int], further: float) -> float:
    along(m.bench.model, m.bench.weights, m.delta, 1.0 + further)
    return float(losses_of(m.bench, capability, items).mean())


def measure_robustness(m: Measuring) -> None:
    """The area under the scores of noise in proportion to each tensor, against the base's under the same draws."""
    items = m.items(m.plan.robust_items)
    moving = [name for name in m.bench.weights.names() if m.bench.weights.entry(name).is_weight]

    def found_of(source: WeightSource, what: str) -> Mapping[str, list[float]]:
        def place(strength: float, draw: int) -> None:
            m.tell(f"noise in proportion: {what}, draw {draw + 1}", 1.0)
            write_weights(m.bench.model, Moved(source, AdaptiveNoise(source, moving, m.profile.seed, draw), strength))

        return areas(place, m.scorers(), items, m.plan.robust_strengths, m.plan.robust_draws)

    base, own = found_of(m.bench.weights, "the base"), found_of(m.weights, "the candidate")
    for name in m.capabilities:
        m.add(
            measurement(Name.ADAPTIVE_ROBUSTNESS, name, mean_area(own[name], m.alphas[name])),
            measurement(Name.ADAPTIVE_ROBUSTNESS_CHANGE, name, area_change(own[name], base[name], m.alphas[name])),
        )


def measure_inputs(m: Measuring) -> None:
    """The worst small change of the input for the candidate, against the base's, same items and ball."""
    m.tell("searching the worst change of the input", 1.0)
    m.bench.restore()
    before = {name: _input_increases(m, name) for name in m.losses}
    write_weights(m.bench.model, m.weights)
    for name in m.capabilities:
        if name not in m.losses:
            m.leave_out(Name.INPUT_SENSITIVITY, name, NO_NUMBER)
            m.leave_out(Name.INPUT_SENSITIVITY_RATIO, name, NO_NUMBER)
            continue
        after = _input_increases(m, name)
        ratio = sensitivity_ratio(after.tolist(), before[name].tolist(), m.alphas[name])
        m.add(
            measurement(Name.INPUT_SENSITIVITY, name, seeds_interval(after.tolist(), m.alphas[name])),
            measurement(Name.INPUT_SENSITIVITY_RATIO, name, ratio),
        )


def _input_increases(m: Measuring, capability: str) -> Scores:
    bench, items = m.bench, m.losses[capability].items
    benchmark = bench.suite.benchmark(capability)

    def searched(part: Sequence[int]) -> Scores:
        return input_sensitivity(
            bench.model,
            lambda: losses_together(bench.model, bench.tokenizer, benchmark, part, bench.forwards),
            radius=m.plan.input_ball,
            steps=m.plan.input_steps,
        )

    return np.concatenate(list(fitting(items, searched, bench.forwards)))


def measure_merging(m: Measuring) -> None:
    """The certificate over the update's rescalings by block, the draw being the unit."""
    items = m.items(m.plan.merge_items)

    def place(draw: int) -> None:
        m.tell("rescaling the update layer by layer", 1.0)
        mixture = drawn_mixture(m.delta, block_of, m.plan.merge_scale, m.seed, draw)
        along(m.bench.model, m.bench.weights, mixture, 1.0)

    found = mixture_scores(place, m.scorers(), items, m.plan.merge_draws)
    for name, base in m.capabilities.items():
        floor = float(np.mean(on_items(base.outcomes, items[name]))) - base.margin
        if floor <= 0:
            m.leave_out(Name.MERGE_RADIUS, name, NO_FLOOR)
        else:
            radius = merge_radius(found[name], m.plan.merge_scale, floor, m.alphas[name])
            m.add(measurement(Name.MERGE_RADIUS, name, radius))


def measure_tampering(m: Measuring) -> None:
    """How far adversarial fine-tuning must go from the candidate, against the same attacks on the base."""
    for name, base in m.capabilities.items():
        m.tell(f"fine-tuning against it: {name}", 1.0)
        found = tamper(m.bench, m.plan, m.profile.seed, name, m.weights, m.profile.weight_norm, base.outcomes)
        m.add(measurement(Name.TAMPER_RADIUS, name, tamper_radius(found, m.profile.weight_norm)))
        ratio = tamper_ratio(found, [Attack(a.norm, a.broke) for a in base.tampering], m.alphas[name])
        if ratio is None:
            m.leave_out(Name.TAMPER_RADIUS_RATIO, name, WITHSTOOD)
        else:
            m.add(measurement(Name.TAMPER_RADIUS_RATIO, name, ratio))


EXTRA_STAGES: Mapping[Extra, Callable[[Measuring], None]] = {
    Extra.SPECTRUM: measure_spectrum,
    Extra.SHARPNESS: measure_sharpness,
    Extra.ROBUSTNESS: measure_robustness,
    Extra.ALIGNMENT: measure_alignment,
    Extra.REFUSAL: measure_refusal,
    Extra.INPUTS: measure_inputs,
    Extra.MERGE: measure_merging,
    Extra.TAMPER: measure_tampering,
}
"""Cheapest first."""
