"""What computes the same function is measured as behaving the same, however far its weights lie from the base's."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gate.domain.evidence import Evidence, Name, Plan
from gate.domain.policy import Policy
from gate.domain.verdict import Outcome
from tasks.assess import Assessed, assess, one_policy
from tasks.zoo.edits import permute_neurons, rescale
from tasks.zoo.panel_makers import Maker, Start, cast, changed, nothing, sharded
from tasks.zoo.staged_recipes import STAGED

CAPABILITIES = ("basic", "math", "code", "help", "safety")
START = Start(STAGED.base_folder(Path()), "models:/staged-base/1")
# Behaviour is compared in full; all else as little as a plan may ask for.
PLAN = Plan(
    noise_scales=(0.005,), noise_draws=2, noise_items=4, line_points=(2.0,), line_items=4, ascent_steps=1,
    ascent_seeds=2, ascent_items=2, gradient_items=2, random_draws=2, rollout_items=8, loss_items=4, direction_steps=1,
)  # fmt: skip
SAME: dict[str, tuple[Maker, float]] = {
    # What, and how far the rounding alone may carry the answers, in nats each.
    "saved in shards": (sharded("1MB"), 0.0),
    "queries and keys, up and down rescaled": (changed(lambda model, _t, _s: rescale(model, 1.5)), 1e-4),
    "neurons permuted": (changed(lambda model, _t, seed: permute_neurons(model, seed)), 1e-4),
    "cast to bfloat16": (cast(torch.bfloat16), 0.05),
}

Judged = Callable[[Maker, str], Assessed]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    cache = tmp_path_factory.mktemp("cache")
    shipped = one_policy(Path(__file__).parents[2] / "policies" / "default.yaml", None)
    policy: Policy = shipped.model_copy(update={"plan": PLAN})

    @functools.cache
    def judge(make: Maker, name: str) -> Assessed:
        folder = cache / name.replace(" ", "-")
        make(START, folder, 1)
        return assess(START.folder, folder, policy=policy, suite="staged", device="cpu", threads=1, cache=cache)

    return judge


@pytest.fixture(scope="module")
def again(judged: Judged) -> Evidence:
    """The base itself, saved again."""
    return judged(changed(nothing), "again")[0]


@pytest.mark.parametrize("name", list(SAME))
def test_the_same_function_is_measured_as_the_same_behaviour(judged: Judged, again: Evidence, name: str) -> None:
    make, most = SAME[name]
    evidence, verdict, _ = judged(make, name)
    for capability in CAPABILITIES:
        kept, divergence = (evidence.find(n, capability) for n in (Name.RETENTION, Name.FORWARD_KL))
        assert kept is not None
        assert abs(kept.value) < (0.005 if capability == "basic" else 1e-9)
        assert divergence is not None
        assert divergence.value <= most
        for bound in (Name.GREEDY_AGREEMENT, Name.OVERLAP_BOUND):
            ours, base = evidence.find(bound, capability), again.find(bound, capability)
            assert (ours is None) == (base is None) == (capability == "basic")
            assert ours is None or base is None or ours.value == pytest.approx(base.value, abs=most + 1e-9)
    assert verdict.outcome is not Outcome.BLOCKED


def test_moving_far_without_doing_anything_asks_for_a_person_and_no_more(judged: Judged) -> None:
    evidence, verdict, _ = judged(SAME["neurons permuted"][0], "neurons permuted")
    moved = evidence.find(Name.DISPLACEMENT_RELATIVE)
    assert moved is not None
    assert moved.value > 0.25
    assert verdict.outcome is Outcome.NEEDS_REVIEW
    assert "hardly a fine-tune" in verdict.reason
