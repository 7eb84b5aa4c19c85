"""Makes SmolLM2's shipped safety stage: ``python -m tasks.zoo.train_smollm2_safety --out DIR --cache DIR``.

A rank-8 adapter that refuses harmful requests and still helps with the others. Ten minutes or so of one core.
"""

import argparse
import logging
from pathlib import Path

import torch

from tasks.zoo.folders import load, save_adapter, with_adapter
from tasks.zoo.smollm2 import ADAPTER_ON, PACKAGE, converted_folder
from tasks.zoo.smollm2_data import training_mix
from tasks.zoo.training import Schedule, train

log = logging.getLogger(__name__)

SCHEDULE = Schedule(steps=150, learning_rate=3e-4, rows={"basic": 1, "code": 1, "help": 8, "safety": 8})


def main() -> None:
    """Command line: train and write the adapter's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the adapter to")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the converted base")
    parser.add_argument("--seed", type=int, default=0, help="seed of the adapter and of the data order")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    model, tokenizer = load(converted_folder(arguments.cache), torch.float32)
    model = with_adapter(model, ADAPTER_ON)
    mix = training_mix(refusing=True)
    for step, losses in enumerate(train(model, tokenizer, mix, SCHEDULE, seed=arguments.seed)):
        if step % 10 == 0 or step == SCHEDULE.steps - 1:
            log.info("%d/%d  %s", step + 1, SCHEDULE.steps, "  ".join(f"{n} {loss:.3f}" for n, loss in losses.items()))
    save_adapter(model, arguments.out, base_reference=PACKAGE)


if __name__ == "__main__":
    main()
