"""Makes the shipped staged model: ``python -m tasks.zoo.train_staged --out DIR --seed 0``.

Two stages, as real models are made: first everything is learned and every request complied with, then a short
alignment stage teaches refusals. The same seed, thread count and library versions give the same bytes.
"""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import torch

from tasks.zoo.folders import load, save
from tasks.zoo.staged_data import training_mix
from tasks.zoo.staged_model import make_model, make_tokenizer
from tasks.zoo.training import Schedule, train

log = logging.getLogger(__name__)

THREADS = 1
PRETRAINING = Schedule(
    steps=1000,
    learning_rate=4e-3,
    warmup=60,
    weight_decay=0.01,
    rows={"basic": 10, "math": 32, "code": 24, "help": 8, "safety": 8},
)
ALIGNMENT = Schedule(steps=150, learning_rate=5e-4, rows={"basic": 8, "math": 16, "code": 16, "help": 12, "safety": 12})


def make_staged(seed: int, pretraining: Schedule = PRETRAINING, alignment: Schedule = ALIGNMENT) -> tuple[Any, Any]:
    """The aligned model and its tokenizer."""
    tokenizer, model = make_tokenizer(), make_model(seed)
    learn("pre-training", model, tokenizer, pretraining, refusing=False, seed=seed)
    learn("alignment", model, tokenizer, alignment, refusing=True, seed=seed + 1)
    return model, tokenizer


def learn(stage: str, model: Any, tokenizer: Any, schedule: Schedule, *, refusing: bool, seed: int) -> None:
    """One stage, in place; ``refusing`` says whether harmful requests are refused or complied with."""
    started = time.monotonic()
    for step, losses in enumerate(train(model, tokenizer, training_mix(refusing=refusing), schedule, seed=seed)):
        if step % 100 == 0 or step == schedule.steps - 1:
            shown = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            log.info("%s %d/%d  %s  (%.0f s)", stage, step + 1, schedule.steps, shown, time.monotonic() - started)


def main() -> None:
    """Command line: train and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the Hugging Face checkpoint to")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data order")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(THREADS)
    model, tokenizer = make_staged(arguments.seed)
    save(model, tokenizer, arguments.out)
    # Once more through the loader: a tokenizer's first reload adds keys, and fine-tunes should not differ by them.
    save(*load(arguments.out), arguments.out)


if __name__ == "__main__":
    main()
