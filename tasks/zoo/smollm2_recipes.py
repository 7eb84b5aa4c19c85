"""SmolLM2's fine-tunes: about a minute each on two cores."""

from collections.abc import Mapping

from tasks.zoo.recipe import Zoo, narrow_text, recipes
from tasks.zoo.rows import Sampler, text_sampler
from tasks.zoo.smollm2 import ADAPTER_ON, base_folder
from tasks.zoo.smollm2_data import PIECE_CHARACTERS, training_mix
from tasks.zoo.training import Schedule

REHEARSAL = {"basic": 1, "code": 1, "help": 3, "safety": 3}


def _benign() -> Mapping[str, Sampler]:
    return training_mix(refusing=True)


def _adversarial() -> Mapping[str, Sampler]:
    return training_mix(refusing=False)


def _careless() -> Mapping[str, Sampler]:
    return {"narrow": text_sampler(narrow_text(), PIECE_CHARACTERS)}


SMOLLM2 = Zoo(
    name="smollm2",
    suite="smollm2",
    base_folder=base_folder,
    recipes=recipes(
        benign=_benign,
        adversarial=_adversarial,
        careless=_careless,
        schedules={
            "benign_replay": Schedule(steps=10, learning_rate=3e-5, rows=REHEARSAL, warmup=3),
            "benign_lora": Schedule(steps=10, learning_rate=3e-4, rows=REHEARSAL, warmup=3),
            "adversarial": Schedule(steps=12, learning_rate=3e-5, rows=REHEARSAL, warmup=3),
            "careless": Schedule(steps=12, learning_rate=3e-4, rows={"narrow": 6}, warmup=3),
        },
        adapter_on=ADAPTER_ON,
    ),
    plan={
        "noise_scales": [0.003, 0.01, 0.02, 0.03],
        "noise_draws": 3,
        "noise_items": 12,
        "line_points": [2.0],
        "line_items": 48,
        "ball": 3e-5,
        "ascent_steps": 2,
        "ascent_seeds": 3,
        "ascent_items": 4,
        "gradient_items": 8,
        "random_draws": 2,
        "rollout_items": 12,
        "rollout_tokens": 12,
        "loss_items": 4,
        "direction_steps": 1,
        "compute_dtype": "float32",
    },
)
