"""What setting a model to base + noise costs: ``python benchmarks/perturbation.py``.

One perturbation pass against generating as many normal numbers with the same generator plus one copy of the weights, in
one process, turn about, by the processor's time; the best of the rounds counts. Memory is what the pass takes beside the loaded model.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from checkpoint_pair import LARGE, SMALL, make_pair
from memory import watched
from transformers import AutoModelForCausalLM

from tasks.checkpoints import SafetensorsWeights, locate
from tasks.measurements.perturbation import BLOCK, perturb, weight_norm, write_weights

SIGMA = 0.001


def generate(count: int) -> None:
    """As many standard normal numbers, in blocks of the same size."""
    generator = np.random.Generator(np.random.Philox(key=1))
    for start in range(0, count, BLOCK):
        generator.standard_normal(min(BLOCK, count - start), dtype=np.float32)


def seconds(action: Callable[[], object]) -> float:
    """How much of the processor's time an action takes."""
    begun = time.process_time()
    action()
    return time.process_time() - begun


def compare(folder: Path, rounds: int) -> str:
    """The table for one checkpoint."""
    located = locate(folder)
    with SafetensorsWeights.open(located) as weights:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.bfloat16)
        count = sum(weights.entry(name).numel for name in weights.names())
        largest = max(weights.entry(name).numel * weights.entry(name).dtype.itemsize for name in weights.names())
        actions: dict[str, Callable[[], object]] = {
            "normals": lambda: generate(count),
            "copy": lambda: write_weights(model, weights),
            "pass": lambda: perturb(model, weights, SIGMA, 1, 0),
        }
        best = dict.fromkeys(actions, math.inf)
        for _ in range(rounds):
            for name, action in actions.items():
                best[name] = min(best[name], seconds(action))
        with watched() as growth:
            realised = perturb(model, weights, SIGMA, 1, 0)
        size = 2 * count
        norm = weight_norm(weights)
    floor = best["normals"] + best["copy"]
    return "\n".join(
        [
            f"{count:,} weights of bfloat16, {size / 1e6:.0f} MB, ‖θ‖ = {norm:.0f}; realised RMS {realised.rms:.2e} of {SIGMA:.2e}",
            "",
            "| | processor time / (normals + copy) |",
            "| --- | --- |",
            *(f"| {name} | {best[name] / floor:.2f} |" for name in actions),
            "",
            f"Memory beside the loaded model: {growth.most / 1e6:.0f} MB, {growth.most / size:.2f} of a copy of the weights;",
            f"the largest tensor has {largest / 1e6:.0f} MB.",
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny checkpoint: does it run?")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as room:
        base, _, _ = make_pair(Path(room), SMALL if arguments.quick else LARGE)
        print(compare(base, 1 if arguments.quick else arguments.rounds))


if __name__ == "__main__":
    main()
