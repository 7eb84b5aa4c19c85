"""How an update lies to the step that aligned its base: closed forms, and the stage on tiny real models."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import an_evidence
from checkpoint_folders import as_base, copied, model_folder, rewritten
from tiny_language import tiny_llama, tiny_tokenizer

from gate.domain.checkpoint import Ancestor, Base
from gate.domain.errors import NotFound, Unavailable
from gate.domain.evidence import BasinProfile, Name, Plan
from gate.domain.vocabulary import EXTRAS, Extra
from tasks.alignment_stage import measure_alignment
from tasks.bench import Bench
from tasks.checkpoints import SafetensorsWeights, locate, open_delta
from tasks.measurements.alignment import AlongAlignment, along, leading_directions, summed
from tasks.measuring import Measuring
from tasks.suites import Suite


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_one(update: torch.Tensor, step: torch.Tensor) -> AlongAlignment:
    found = summed([along(update, step)])
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (100, 8)])
def test_the_leading_directions_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    step = normal(*shape)
    found = leading_directions(step)
    U = torch.linalg.svd(step, full_matrices=False).U[:, : found.shape[1]]
    assert found.shape[1] == min(shape) // 4
    torch.testing.assert_close(found @ found.T, U @ U.T)


@pytest.mark.parametrize("factor", [-1.0, 0.25])
def test_an_update_along_the_alignment_step_has_its_sign_whatever_its_size(factor: float) -> None:
    step = normal(32, 6) @ normal(6, 48, seed=1)
    found = of_one(factor * step, step)
    assert found.cosine == pytest.approx(math.copysign(1, factor))
    assert found.within == pytest.approx(1)
    assert found.by_chance == pytest.approx(math.sqrt(6 / 32))


def test_an_update_beside_the_alignment_step_has_none_of_it() -> None:
    step = torch.zeros(32, 48, dtype=torch.float64)
    step[:8] = normal(8, 48)
    update = torch.zeros_like(step)
    update[8:] = normal(24, 48, seed=1)
    assert of_one(update, step).cosine == 0
    assert of_one(update, step).within == pytest.approx(0, abs=1e-9)


def test_random_updates_show_what_is_expected_by_chance() -> None:
    step = normal(64, 80)
    found = [of_one(normal(64, 80, seed=seed), step) for seed in range(1, 60)]
    mean = sum(each.within**2 for each in found) / len(found)
    assert mean == pytest.approx(found[0].by_chance ** 2, rel=0.03)
    assert max(abs(each.cosine) for each in found) < 5 / math.sqrt(64 * 80)


def test_random_updates_spread_as_their_standard_deviations_say() -> None:
    # Two tensors of unlike size and length, and a vector, so that the weights of the sum matter.
    steps = [normal(24, 40), 3 * normal(48, 20, seed=1), normal(30, seed=2)]
    sizes = [2.0, 1.0, 0.5]

    def drawn(seed: int) -> AlongAlignment:
        updates = [normal(*step.shape, seed=100 * seed + n) for n, step in enumerate(steps)]
        scaled = [size * update / update.norm() for size, update in zip(sizes, updates, strict=True)]
        found = summed(along(update, step) for update, step in zip(scaled, steps, strict=True))
        assert found is not None
        return found

    found = [drawn(seed) for seed in range(1, 301)]
    cosines, shares = (torch.tensor([getattr(each, name) for each in found]) for name in ("cosine", "within"))
    assert float(cosines.std()) == pytest.approx(found[0].cosine_sd, rel=0.15)
    assert float(shares.std()) == pytest.approx(found[0].within_sd, rel=0.15)
    assert float(shares.mean()) == pytest.approx(found[0].by_chance, rel=0.01)


def test_of_one_matrix_the_chance_is_the_closed_form() -> None:
    found = of_one(normal(32, 48, seed=3), normal(32, 6) @ normal(6, 48, seed=1))
    share, weights = 6 / 32, 32 * 48
    assert found.cosine_sd == pytest.approx(1 / math.sqrt(weights))
    assert found.within_sd == pytest.approx(math.sqrt(2 * share * (1 - share) / (weights + 2)) / (2 * math.sqrt(share)))


def test_a_model_without_a_step_or_an_update_has_no_number() -> None:
    step = normal(8, 8)
    assert summed([along(torch.zeros(8, 8), step)]) is None
    assert summed([along(step, torch.zeros(8, 8))]) is None
    assert summed([along(step[0], step[1])]) is None
    assert summed([]) is None


@pytest.fixture(scope="module")
def ancestor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("ancestor") / "unaligned", seed=1)


@pytest.fixture(scope="module")
def aligned(ancestor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ancestor, moved a little in a few directions of each matrix."""

    def align(tensors: dict[str, torch.Tensor]) -> None:
        for number, (name, tensor) in enumerate(sorted(tensors.items())):
            if tensor.dim() == 2:
                tensors[name] = (
                    tensor + 0.1 * (normal(len(tensor), 2, seed=number) @ normal(2, tensor.shape[1])).float()
                )

    return rewritten(copied(ancestor, tmp_path_factory.mktemp("aligned") / "base"), align)


def measured(
    base: Path,
    candidate: Path,
    ancestor: Path | None,
    attested: Path | None = None,
    fetch: Callable[[], Path] | None = None,
) -> Measuring:
    known = None if ancestor is None else Ancestor(source="a", checkpoint=as_base(attested or ancestor)[1])
    onboarded = Base(name="b", digest="b" * 64, source="b", suite="s", checkpoint=as_base(base)[1], ancestor=known)
    weights, located = SafetensorsWeights.open(locate(base)), locate(base)
    bench = Bench(
        onboarded,
        located,
        weights,
        Suite("s", "c" * 64, False, ()),
        tiny_llama(),
        tiny_tokenizer(),
        fetch or (lambda: ancestor),
    )
    profile = BasinProfile(
        base_digest="b" * 64, suite_digest="c" * 64, plan_digest="d" * 64, parameters=1, weight_norm=1.0,
        capabilities=(), gradients_sha256=None, seed=7, provenance={}, seconds=1.0,
    )  # fmt: skip
    delta = open_delta(locate(candidate), weights)
    m = Measuring(
        bench,
        profile,
        delta,
        weights,
        Plan(),
        7,
        lambda *_: None,
        an_evidence(measurements=()).model_copy(update={"unmeasured": {}}),
    )
    measure_alignment(m)
    return m


def numbers(m: Measuring) -> dict[Name, float]:
    return {each.name: each.estimate.value for each in m.evidence.measurements}


def test_a_fine_tune_that_undoes_the_alignment_says_so(aligned: Path, ancestor: Path, tmp_path: Path) -> None:
    def back(tensors: dict[str, torch.Tensor]) -> None:
        unaligned = SafetensorsWeights.open(locate(ancestor))
        for name in tensors:
            tensors[name] = 0.5 * tensors[name] + 0.5 * unaligned.tensor(name)

    found = numbers(measured(aligned, rewritten(copied(aligned, tmp_path / "undone"), back), ancestor))
    assert found[Name.ALIGNMENT_COSINE] == pytest.approx(-1, abs=1e-4)
    assert found[Name.ALIGNMENT_SUBSPACE_COSINE] == pytest.approx(1, abs=1e-3)
    assert found[Name.ALIGNMENT_SUBSPACE_RATIO] > 2


def test_a_fine_tune_elsewhere_looks_like_chance(aligned: Path, ancestor: Path, tmp_path: Path) -> None:
    def away(tensors: dict[str, torch.Tensor]) -> None:
        for number, (name, tensor) in enumerate(sorted(tensors.items())):
            tensors[name] = tensor + 0.01 * normal(*tensor.shape, seed=50 + number).float()

    found = numbers(measured(aligned, rewritten(copied(aligned, tmp_path / "tuned"), away), ancestor))
    assert abs(found[Name.ALIGNMENT_COSINE]) < 0.1
    assert found[Name.ALIGNMENT_SUBSPACE_RATIO] == pytest.approx(1, abs=0.15)


def test_only_the_layer_that_goes_back_on_the_alignment_stands_out(
    aligned: Path, ancestor: Path, tmp_path: Path
) -> None:
    def back(tensors: dict[str, torch.Tensor]) -> None:
        unaligned = SafetensorsWeights.open(locate(ancestor))
        for number, (name, tensor) in enumerate(sorted(tensors.items())):
            if ".layers.1." in name:
                tensors[name] = unaligned.tensor(name)
            elif ".layers.0." in name and tensor.dim() == 2:
                tensors[name] = tensor + 0.01 * normal(*tensor.shape, seed=50 + number).float()

    m = measured(aligned, rewritten(copied(aligned, tmp_path / "undone"), back), ancestor)
    whole, noise, undone = m.evidence.alignment
    assert (whole.layer, noise.layer, undone.layer) == (None, "0", "1")
    assert (whole.cosine, whole.within) == (
        numbers(m)[Name.ALIGNMENT_COSINE],
        numbers(m)[Name.ALIGNMENT_SUBSPACE_COSINE],
    )
    assert whole.ratio == pytest.approx(numbers(m)[Name.ALIGNMENT_SUBSPACE_RATIO])
    assert undone.cosine == pytest.approx(-1, abs=1e-4)
    assert undone.within - undone.by_chance > 10 * undone.within_sd
    assert abs(noise.cosine) < 5 * noise.cosine_sd
    assert abs(noise.within - noise.by_chance) < 5 * noise.within_sd
    assert m.evidence.model_validate(m.evidence.model_dump(mode="json")) == m.evidence


def test_without_the_ancestor_as_it_was_onboarded_it_is_said_why_there_is_no_number(
    aligned: Path, ancestor: Path, tmp_path: Path
) -> None:
    other = model_folder(tmp_path / "other", seed=9)
    for given, attested, said in ((None, None, "--ancestor"), (other, ancestor, "found other bytes")):
        m = measured(aligned, other, given, attested)
        assert m.evidence.measurements == m.evidence.alignment == ()
        assert set(m.evidence.unmeasured) == {name.value for name in EXTRAS[Extra.ALIGNMENT]}
        assert all(said in why for why in m.evidence.unmeasured.values())


def test_an_ancestor_of_other_shapes_is_no_ancestor(aligned: Path, tmp_path: Path) -> None:
    def wider(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}

    other = rewritten(copied(aligned, tmp_path / "wide"), wider)
    m = measured(aligned, aligned, other)
    assert m.evidence.measurements == ()
    assert all("expected the base's shape" in why for why in m.evidence.unmeasured.values())


def test_an_ancestor_that_is_gone_gives_no_number_and_one_that_is_out_of_reach_is_tried_again(
    aligned: Path, ancestor: Path
) -> None:
    def gone() -> Path:
        raise NotFound("expected the ancestor's version, found none")

    def away() -> Path:
        raise Unavailable("MLflow does not answer")

    m = measured(aligned, aligned, ancestor, fetch=gone)
    assert all("expected the ancestor's version" in why for why in m.evidence.unmeasured.values())
    with pytest.raises(Unavailable):
        measured(aligned, aligned, ancestor, fetch=away)
