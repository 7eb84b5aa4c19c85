"""Profiling a base: what it can do, how much random noise it takes, where its worst-case directions point.

Done once per base × suite × plan; every fine-tune of the base is measured against the result.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from gate.domain import evidence
from gate.domain.evidence import BasinProfile, CapabilityProfile, Plan, Rollout
from gate.domain.vocabulary import Extra
from tasks.bench import Bench, Tell
from tasks.drawing import ITSELF, Elsewhere, all_scored, measurable, noise_grid
from tasks.estimates import curve_point, estimate
from tasks.measurements.basin import basin_sigma, noise_items
from tasks.measurements.benchmark import Benchmark, Scores, answer_loss, opening
from tasks.measurements.confidence import mean_interval
from tasks.measurements.crossing import CurvePoint
from tasks.measurements.gradients import capability_gradients, preconditioned, squared_gradients
from tasks.measurements.memory import until_it_fits
from tasks.measurements.perturbation import WeightSource, subseed, weight_norm
from tasks.measurements.retention import item_order
from tasks.measurements.rollouts import Question, greedy_rollouts, sampled_rollouts
from tasks.measurements.sensitivity import Sensitivity, largest_increase, measure_sensitivity
from tasks.sweep import preconditioned_key
from tasks.tampering import tamper

DRAWS_SHARE = 0.65
"""How much of a profile's time its draws of noise take, about."""
NOTHING_ELSEWHERE = Elsewhere()


def profile_base(
    bench: Bench, plan: Plan, seed: int, gradients: Path, tell: Tell, elsewhere: Elsewhere = NOTHING_ELSEWHERE
) -> BasinProfile:
    """The base's profile; its capability gradients are written to the file ``gradients``.

    Draws of noise that were scored ``elsewhere`` are taken from there; all others that are needed are scored here.
    """
    begun = time.monotonic()
    fits = partial(until_it_fits, forwards=bench.forwards, rows=plan.batch_items)
    drawn = all_scored(bench, plan, seed, elsewhere, lambda stage, done, *_: tell(stage, DRAWS_SHARE * done))
    outcomes = drawn[ITSELF]
    known = measurable(bench.suite, outcomes)
    curves = noise_grid(bench.suite, plan, seed, drawn).curves(drawn)
    answers = fits(lambda: _answers(bench, plan, seed, known, tell))
    tell("finding worst-case directions", 0.7)
    gradients_sha256 = fits(lambda: write_gradients(bench, plan, seed, gradients))
    sensitivity = fits(lambda: _sensitivity(bench, plan, seed, known, tell))
    tampering = fits(lambda: _tampering(bench, plan, seed, known, tell))
    bench.restore()
    return BasinProfile(
        base_digest=bench.base.digest,
        suite_digest=bench.suite.digest,
        plan_digest=plan.digest,
        parameters=sum(bench.weights.tensor(n).numel() for n in bench.weights.names()),
        weight_norm=weight_norm(bench.weights),
        capabilities=tuple(
            _capability(
                b,
                outcomes[b.name],
                curves.get(b.name, ()),
                sensitivity.get(b.name),
                answers.get(b.name, ()),
                tampering.get(b.name, ()),
                bench.suite.alphas(plan.alpha)[b.name],
            )
            for b in bench.suite.benchmarks
        ),
        gradients_sha256=gradients_sha256,
        seed=seed,
        provenance=_together(bench.provenance(), *elsewhere.provenances),
        seconds=round(elsewhere.seconds + time.monotonic() - begun, 3),
    )


def _together(*provenances: Mapping[str, str]) -> Mapping[str, str]:
    """What everything was made with: where workers differ, all that they were, in alphabetical order."""
    names = sorted({name for each in provenances for name in each})
    return {name: "; ".join(sorted({each[name] for each in provenances if name in each})) for name in names}


def write_gradients(bench: Bench, plan: Plan, seed: int, path: Path) -> str:
    """Writes each capability's loss gradient at the base as ``capability/tensor``; returns the file's sha256.

    Where the plan asks for it the preconditioned one is there too (`preconditioned_key`).
    """
    bench.restore()
    benchmarks = [gradient_benchmark(b, plan, seed) for b in bench.suite.benchmarks]
    tensors: dict[str, Tensor] = {
        f"{capability}/{name}": gradient.to("cpu").clone()
        for capability, name, gradient in capability_gradients(
            bench.model, bench.tokenizer, benchmarks, forwards=bench.forwards
        )
    }
    for benchmark in benchmarks if Extra.GRADIENTS in plan.also else ():
        squares = squared_gradients(bench.model, bench.tokenizer, benchmark, forwards=bench.forwards)
        for name, square in squares.items():
            made = preconditioned(tensors[f"{benchmark.name}/{name}"], square)
            tensors[f"{preconditioned_key(benchmark.name)}/{name}"] = made
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished)
    unfinished.replace(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def gradient_benchmark(benchmark: Benchmark, plan: Plan, seed: int) -> Benchmark:
    """The benchmark with only the items whose mean loss defines the capability's worst-case direction."""
    count = len(benchmark.items)
    chosen = noise_items(count, plan.gradient_items, item_order(count, seed, f"{benchmark.name}/gradient"))
    return replace(benchmark, items=tuple(benchmark.items[i] for i in chosen))


def _sensitivity(
    bench: Bench, plan: Plan, seed: int, capabilities: Mapping[str, Scores], tell: Tell
) -> Mapping[str, Sensitivity]:
    found = {}
    for place, capability in enumerate(capabilities):
        tell(f"searching the worst change: {capability}", 0.8 + 0.2 * place / len(capabilities))
        found[capability] = search_worst(bench, plan, seed, capability, weight_norm(bench.weights), bench.weights)
    return found


def _tampering(
    bench: Bench, plan: Plan, seed: int, capabilities: Mapping[str, Scores], tell: Tell
) -> Mapping[str, tuple[evidence.Attack, ...]]:
    """The attacks on the base that candidates are compared with, where the plan asks for them."""
    found = {}
    for capability, outcomes in capabilities.items() if Extra.TAMPER in plan.also else ():
        tell(f"fine-tuning against the base: {capability}", 1.0)
        made = tamper(bench, plan, seed, capability, bench.weights, weight_norm(bench.weights), outcomes)
        found[capability] = tuple(evidence.Attack(norm=attack.norm, broke=attack.broke) for attack in made)
    return found


def search_worst(
    bench: Bench, plan: Plan, seed: int, capability: str, norm: float, source: WeightSource
) -> Sensitivity:
    """The worst weight change inside the plan's ball around ``source``; same items and starts for base and candidate."""
    benchmark = bench.suite.benchmark(capability)
    return measure_sensitivity(
        bench.model,
        source,
        partial(answer_loss, bench.model, bench.tokenizer, benchmark, forwards=bench.forwards),
        len(benchmark.items),
        capability=capability,
        radius=plan.ball * norm,
        steps=plan.ascent_steps,
        seeds=plan.ascent_seeds,
        items=plan.ascent_items,
        seed=seed,
    )


def worst_increase(bench: Bench, plan: Plan, seed: int, capability: str, norm: float, items: Sequence[int]) -> float:
    """The largest loss increase found within ``norm`` of the base, on these items."""
    benchmark = bench.suite.benchmark(capability)
    return largest_increase(
        bench.model,
        bench.weights,
        partial(answer_loss, bench.model, bench.tokenizer, benchmark, items, bench.forwards),
        radius=norm,
        steps=plan.direction_steps,
        seed=subseed(seed, f"{capability}/worst"),
    )


def _answers(
    bench: Bench, plan: Plan, seed: int, capabilities: Mapping[str, Scores], tell: Tell
) -> Mapping[str, tuple[Rollout, ...]]:
    """What the base answers to some items of each capability, for candidates to read."""
    bench.restore()
    found = {}
    for place, (capability, outcomes) in enumerate(capabilities.items()):
        tell(f"writing the base's answers: {capability}", DRAWS_SHARE + 0.05 * place / len(capabilities))
        order = item_order(outcomes.size, seed, f"{capability}/rollouts")
        items = sorted(order[: plan.rollout_items])
        parts = (items[first : first + plan.batch_items] for first in range(0, len(items), plan.batch_items))
        found[capability] = tuple(
            rollout for part in parts for rollout in write_answers(bench, plan, seed, capability, part)
        )
    return found


def write_answers(bench: Bench, plan: Plan, seed: int, capability: str, items: Sequence[int]) -> Iterator[Rollout]:
    """The answers of the model as it is: drawn for every item, by first guesses where those are what is scored."""
    benchmark, tokenizer = bench.suite.benchmark(capability), bench.tokenizer
    asked = [Question(i, opening(tokenizer, benchmark, i), benchmark.items[i].answer) for i in items]
    room = plan.rollout_tokens
    drawn = sampled_rollouts(
        bench.model, tokenizer, asked, room, subseed(seed, f"{capability}/rollouts"), bench.forwards
    )
    if benchmark.scorer != "exact":
        for item, sampled in zip(items, drawn, strict=True):
            yield Rollout(item=item, sampled=sampled.tokens, log_probability=sampled.log_probability)
        return
    first = greedy_rollouts(bench.model, tokenizer, asked, room, bench.forwards)
    for item, sampled, greedy in zip(items, drawn, first, strict=True):
        yield Rollout(
            item=item,
            greedy=greedy.tokens,
            greedy_right=greedy.right,
            sampled=sampled.tokens,
            log_probability=sampled.log_probability,
            sampled_right=sampled.right,
        )


def _capability(
    benchmark: Benchmark,
    outcomes: Scores,
    curve: tuple[CurvePoint, ...],
    sensitivity: Sensitivity | None,
    rollouts: tuple[Rollout, ...],
    tampering: tuple[evidence.Attack, ...],
    alpha: float,
) -> CapabilityProfile:
    score = mean_interval(outcomes, alpha)
    measurable = float(np.mean(outcomes)) > benchmark.margin
    edge = basin_sigma(curve, float(np.mean(outcomes)), benchmark.margin) if curve else None
    return CapabilityProfile(
        capability=benchmark.name,
        margin=benchmark.margin,
        score=estimate(score),
        outcomes=tuple(float(o) for o in outcomes),
        noise=(*_origin(curve), *(curve_point(p) for p in curve)),
        basin_sigma=None if edge is None else estimate(edge),
        sensitivity=sensitivity.adversarial if sensitivity else (),
        random_sensitivity=sensitivity.random if sensitivity else (),
        rollouts=rollouts,
        tampering=tampering,
        measurable=measurable,
        why_not=""
        if measurable
        else (
            f"not measurable: the base scores {float(np.mean(outcomes)):.2f}, not above the margin {benchmark.margin}"
        ),
    )


def _origin(curve: tuple[CurvePoint, ...]) -> Iterator[evidence.CurvePoint]:
    """Where a curve starts: the base itself on the curve's items, exactly."""
    if curve:
        base = curve[0].score.value - curve[0].difference.value
        yield evidence.CurvePoint(at=0.0, estimate=evidence.Estimate.exact(base))
