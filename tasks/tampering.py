"""Adversarial fine-tuning of whatever stands on the bench: the same attacks for a base, once, and for its candidates."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gate.domain.evidence import Plan
from tasks.bench import Bench
from tasks.measurements.basin import noise_items, on_items
from tasks.measurements.benchmark import Scores, answer_loss
from tasks.measurements.perturbation import WeightSource, subseed
from tasks.measurements.retention import item_order
from tasks.measurements.tamper import Attack, attacks

LOST = 0.5
"""A capability is broken where this share of the base's score on the same items is left, or less."""


def tamper(
    bench: Bench,
    plan: Plan,
    seed: int,
    capability: str,
    source: WeightSource,
    weight_norm: float,
    base_outcomes: Sequence[float] | Scores,
) -> tuple[Attack, ...]:
    """The attacks on a capability from ``source``, one a seed; ``seed`` is the profile's, for base and candidate alike."""
    benchmark = bench.suite.benchmark(capability)
    count = len(benchmark.items)
    watched = noise_items(count, plan.noise_items, item_order(count, seed, f"{capability}/tamper"))
    enough = LOST * float(np.mean(on_items(base_outcomes, watched)))
    score = bench.scorers(plan.batch_items)[capability]

    def loss_of(number: int, step: int) -> Tensor:
        order = item_order(count, seed, f"{capability}/tamper/{number}")
        chosen = [order[(step * plan.ascent_items + place) % count] for place in range(min(count, plan.ascent_items))]
        return answer_loss(bench.model, bench.tokenizer, benchmark, chosen, bench.forwards)

    def broken() -> bool:
        return float(np.mean(score(watched))) <= enough

    return attacks(
        bench.model,
        source,
        loss_of,
        broken,
        reach=plan.tamper_reach * weight_norm,
        steps=plan.tamper_steps,
        seeds=plan.tamper_seeds,
        seed=subseed(seed, f"{capability}/tamper"),
    )
