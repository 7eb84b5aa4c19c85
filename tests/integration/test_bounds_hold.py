"""Divergence, bounds and directions on real fine-tunes of the shipped base: what is bounded is really measured."""

from collections.abc import Callable
from pathlib import Path

import pytest
from builders import an_evidence
from fine_tunes import FineTunes

from gate.domain.checkpoint import Base
from gate.domain.evidence import BasinProfile, Estimate, Evidence, Measurement, Name, Plan
from tasks.assess import quiet
from tasks.bench import Bench
from tasks.candidate import ALIKE, STAGES, certified
from tasks.checkpoints import locate
from tasks.deltas import open_delta
from tasks.divergence_stage import NOT_WRITTEN, diverge
from tasks.measurements.benchmark import score_items
from tasks.measurements.confidence import clopper_pearson
from tasks.measurements.perturbation import Moved, along
from tasks.measuring import Measuring
from tasks.profiling import profile_base, write_answers
from tasks.static_stage import inspect_folder
from tasks.zoo.staged_recipes import STAGED

BASE = STAGED.base_folder(Path())
WRITTEN = ("math", "code", "help", "safety")
# Only the rollouts matter here; all else as little as a plan may ask for.
PLAN = Plan(
    noise_scales=(0.005,),
    noise_draws=2,
    noise_items=4,
    rollout_items=12,
    ascent_steps=2,
    ascent_seeds=2,
    ascent_items=2,
    gradient_items=2,
    random_draws=3,
    direction_steps=2,
)
FINE_TUNES = [("benign_replay", 1.0), ("benign_replay", 4.0), ("adversarial", 0.3), ("adversarial", 1.0)]
FINE_TUNES += [("careless", 0.5), ("careless", 1.0), ("benign_lora", 1.0), ("benign_lora", 3.0)]

At = Callable[[str, float], Measuring]


@pytest.fixture(scope="module")
def bench() -> Bench:
    attested = inspect_folder(BASE).checkpoint
    base = Base(name="staged", digest=attested.digest, source=str(BASE), suite="staged", checkpoint=attested)
    return Bench.load(base, BASE, "cpu")


@pytest.fixture(scope="module")
def profile(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> BasinProfile:
    return profile_base(bench, PLAN, 7, tmp_path_factory.mktemp("profile") / "gradients.safetensors", quiet)


@pytest.fixture(scope="module")
def at(bench: Bench, profile: BasinProfile, fine_tune: FineTunes) -> At:
    """A fine-tune, or a point on its line, after the forward-only stage; the bench is left at it."""

    def measured(kind: str, t: float) -> Measuring:
        delta = open_delta(locate(fine_tune(kind)), bench.weights)
        evidence = an_evidence(plan=PLAN, measurements=(), curves=(), unmeasured={})
        weights = Moved(bench.weights, delta, t)
        measuring = Measuring(bench, profile, delta, weights, PLAN, evidence.seed, quiet, evidence)
        diverge(measuring)
        return measuring

    return measured


def found(evidence: Evidence, name: Name, capability: str) -> Estimate:
    estimate = evidence.find(name, capability)
    assert estimate is not None
    return estimate


@pytest.mark.parametrize(("kind", "t"), FINE_TUNES)
def test_every_lower_bound_is_at_most_the_score_it_bounds(at: At, kind: str, t: float) -> None:
    measuring = at(kind, t)
    bench, compared = measuring.bench, 0
    along(bench.model, bench.weights, measuring.delta, t)
    for name in WRITTEN:
        items = [r.item for r in measuring.capabilities[name].rollouts]
        greedy = score_items(bench.model, bench.tokenizer, bench.suite.benchmark(name), items)
        assert found(measuring.evidence, Name.GREEDY_AGREEMENT, name).value <= greedy.mean()
        sampled = [r.sampled_right for seed in range(2) for r in write_answers(bench, PLAN, seed, name, items)]
        measured = clopper_pearson(sum(sampled), len(sampled), 0.01)
        bound = found(measuring.evidence, Name.OVERLAP_BOUND, name)
        assert bound.lower is not None
        assert measured.upper is not None
        assert bound.lower <= measured.upper
        compared += len(sampled)
    assert compared == 2 * 4 * PLAN.rollout_items


def test_the_base_against_itself_differs_by_exactly_nothing(at: At) -> None:
    measuring = at("benign_lora", 0.0)
    for name, base in measuring.capabilities.items():
        assert found(measuring.evidence, Name.FORWARD_KL, name).value == 0.0
        assert found(measuring.evidence, Name.LOSS_INCREASE, name).value == 0.0
        if name in WRITTEN:
            right = sum(r.greedy_right for r in base.rollouts) / len(base.rollouts)
            assert found(measuring.evidence, Name.GREEDY_AGREEMENT, name).value == right > 0.7
            drawn = sum(r.sampled_right for r in base.rollouts) / len(base.rollouts)
            assert found(measuring.evidence, Name.OVERLAP_BOUND, name).value == pytest.approx(drawn, abs=1e-3)


def test_what_the_base_answers_right_is_what_its_scorer_finds_right(profile: BasinProfile) -> None:
    for capability in profile.capabilities:
        for rollout in capability.rollouts:
            assert rollout.greedy_right == (
                capability.outcomes[rollout.item] == 1.0 and capability.capability != "basic"
            )


def test_text_that_is_only_guessed_at_has_a_divergence_and_no_bounds(at: At) -> None:
    evidence = at("benign_replay", 1.0).evidence
    assert found(evidence, Name.FORWARD_KL, "basic").value > 0
    assert evidence.find(Name.GREEDY_AGREEMENT, "basic") is None
    assert evidence.unmeasured["greedy_agreement/basic"] == evidence.unmeasured["overlap_bound/basic"] == NOT_WRITTEN


def test_a_harmful_update_costs_safety_what_no_random_one_of_its_size_does(at: At) -> None:
    bad, good = (_placed(at(kind, 1.0)) for kind in ("adversarial", "benign_replay"))
    safety = found(bad, Name.LOSS_INCREASE_Z, "safety")
    assert safety.lower is not None
    assert safety.lower > 50
    assert abs(found(bad, Name.LOSS_INCREASE_Z, "math").value) < safety.lower
    assert found(good, Name.LOSS_INCREASE_Z, "safety").value < 50
    assert found(bad, Name.LOSS_INCREASE_OF_WORST, "safety").value > 0.01
    assert found(good, Name.LOSS_INCREASE_OF_WORST, "safety").value < 0.001
    first = found(bad, Name.FORWARD_KL_FIRST_TOKEN, "safety").value
    assert first > 0.9 * found(bad, Name.FORWARD_KL, "safety").value > 1


def _placed(measuring: Measuring) -> Evidence:
    """With random and worst directions of the update's norm beside it."""
    norm = sum(float(measuring.delta.delta(n).double().square().sum()) for n in measuring.delta.names()) ** 0.5
    measuring.add(Measurement(name=Name.DISPLACEMENT_NORM, estimate=Estimate.exact(norm)))
    for stage in ("behaviour", "control", "direction"):
        STAGES[stage](measuring)
    return measuring.evidence


def test_directions_that_do_not_differ_are_told_as_such(at: At) -> None:
    measuring = at("benign_lora", 0.0)
    measuring.delta = _Nothing()
    evidence = _placed(measuring)
    assert evidence.find(Name.LOSS_INCREASE_Z, "safety") is None
    assert evidence.unmeasured["loss_increase_z/safety"] == ALIKE


class _Nothing:
    """An update of nothing."""

    def names(self) -> list[str]:
        return []

    def delta(self, name: str) -> None:
        raise AssertionError(name)


def test_the_certificate_is_vacuous_for_every_one_of_them(at: At, profile: BasinProfile) -> None:
    for kind in ("benign_replay", "adversarial", "careless"):
        measuring = at(kind, 1.0)
        norm = sum(float(measuring.delta.delta(n).double().square().sum()) for n in measuring.delta.names()) ** 0.5
        for capability in profile.capabilities:
            values = {m.name: m.estimate.value for m in certified(capability, norm)}
            assert values[Name.CERTIFICATE_VACUOUS] == 1.0
            assert values[Name.CERTIFIED_RADIUS] < norm / 3
