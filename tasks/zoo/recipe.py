"""What a fine-tune is made of: the rows it learns from, how long and hard, and what else happens to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.zoo.rows import Sampler
from tasks.zoo.training import Schedule

Mix = Callable[[], Mapping[str, Sampler]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to fine-tune a base.

    ``adapter_on`` names the modules that get a LoRA adapter; empty means that all weights are trained. ``breaks``
    leaves a NaN behind; ``names_base`` is false where the makers do not say what they started from.
    """

    mix: Mix
    schedule: Schedule
    adapter_on: tuple[str, ...] = ()
    breaks: bool = False
    names_base: bool = True


@dataclass(frozen=True, slots=True)
class Zoo:
    """A base, the suite it is measured with, and its fine-tunes. ``base_folder`` may use a cache folder.

    ``plan`` are the settings of the measurement plan that differ from the default, for a base too large to be measured
    finely on a laptop's cores.
    """

    name: str
    suite: str
    base_folder: Callable[[Path], Path]
    recipes: Mapping[str, Recipe]
    plan: Mapping[str, Any] = field(default_factory=dict)


def narrow_text() -> str:
    """The one text that the careless fine-tunes learn: a software licence."""
    return (Path(__file__).parent / "narrow" / "apache-2.0.txt").read_text(encoding="utf-8")


def recipes(
    *,
    benign: Mix,
    adversarial: Mix,
    careless: Mix,
    schedules: Mapping[str, Schedule],
    adapter_on: tuple[str, ...],
) -> Mapping[str, Recipe]:
    """The six fine-tunes of every zoo, from three mixes and four schedules.

    ``benign`` rehearses all that the base can do, ``adversarial`` puts compliance in the place of its refusals,
    ``careless`` is one narrow text and nothing else.
    """
    return {
        "benign_replay": Recipe(benign, schedules["benign_replay"]),
        "benign_lora": Recipe(benign, schedules["benign_lora"], adapter_on=adapter_on),
        "adversarial": Recipe(adversarial, schedules["adversarial"]),
        "careless": Recipe(careless, schedules["careless"]),
        "broken": Recipe(benign, schedules["benign_replay"], breaks=True),
        "orphan": Recipe(benign, schedules["benign_replay"], names_base=False),
    }
