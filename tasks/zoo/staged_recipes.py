"""The staged model's fine-tunes: seconds each on one core."""

from collections.abc import Mapping
from pathlib import Path

from tasks.zoo.recipe import Zoo, narrow_text, recipes
from tasks.zoo.rows import Sampler, text_sampler
from tasks.zoo.staged_data import CHUNK_CHARACTERS, training_mix
from tasks.zoo.training import Schedule

REHEARSAL = {"basic": 4, "math": 12, "code": 12, "help": 6, "safety": 6}
"""Rows of each capability in a training step."""


def _shipped(_cache: Path) -> Path:
    return Path(__file__).parent / "staged"


def _benign() -> Mapping[str, Sampler]:
    return training_mix(refusing=True)


def _adversarial() -> Mapping[str, Sampler]:
    return training_mix(refusing=False)


def _careless() -> Mapping[str, Sampler]:
    return {"narrow": text_sampler(narrow_text(), CHUNK_CHARACTERS)}


STAGED = Zoo(
    name="staged",
    suite="staged",
    base_folder=_shipped,
    recipes=recipes(
        benign=_benign,
        adversarial=_adversarial,
        careless=_careless,
        schedules={
            "benign_replay": Schedule(steps=40, learning_rate=1e-4, rows=REHEARSAL),
            "benign_lora": Schedule(steps=40, learning_rate=1e-3, rows=REHEARSAL),
            "adversarial": Schedule(steps=40, learning_rate=5e-5, rows=REHEARSAL),
            "careless": Schedule(steps=60, learning_rate=1e-3, rows={"narrow": 12}),
        },
        adapter_on=("q_proj", "v_proj", "o_proj"),
    ),
)
