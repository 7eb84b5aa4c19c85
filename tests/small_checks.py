"""What is enough to measure the staged base by in seconds: a part of its suite, and the shipped policy measuring little."""

from pathlib import Path
from typing import Any

import yaml

from gate.adapters.policy_files import DEFAULT

STAGED = Path(__file__).parents[1] / "tasks" / "zoo" / "staged"
SUITE = STAGED.parent / "suites" / "staged"
CAPABILITIES = ("math", "help", "safety")
# No more than the deciding rules need.
PLAN = {
    "noise_scales": [0.01, 0.03],
    "noise_draws": 2,
    "noise_items": 4,
    "line_points": [2.0],
    "line_items": 4,
    "ascent_steps": 1,
    "ascent_seeds": 2,
    "ascent_items": 2,
    "gradient_items": 4,
    "random_draws": 2,
    "rollout_items": 2,
    "loss_items": 2,
    "direction_steps": 1,
}


def small_check_policy(file: Path, **changes: Any) -> Path:
    """The shipped policy, measuring little, changed."""
    document = yaml.safe_load(DEFAULT.read_text(encoding="utf-8")) | {"plan": PLAN} | changes
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def part_of_suite(folder: Path) -> Path:
    """A part of the staged suite in a new folder: what is asked can be seen lost, in a third of the time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CAPABILITIES:
        lines = (SUITE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:48]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = [{"name": n, "scorer": "exact", "items": f"{n}.jsonl", "margin": 0.2} for n in CAPABILITIES]
    (folder / "suite.yaml").write_text(yaml.safe_dump({"name": "part", "capabilities": rows}))
    return folder
