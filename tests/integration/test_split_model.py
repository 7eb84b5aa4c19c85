"""A base split over two devices: the same numbers as on one. The second device is torch's lazy backend, which keeps its
tensors apart from the processor's and refuses to compute with both, as two GPUs do."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_language import LETTERS, tiny_llama, tiny_tokenizer
from torch._lazy import ts_backend

from gate.domain.errors import NotMeasurable
from gate.domain.evidence import Evidence, Plan
from gate.domain.gpu_sizes import COPIES, WORK_BYTES
from gate.domain.vocabulary import Extra
from tasks import placing
from tasks.assess import assess, one_policy
from tasks.measurements.benchmark import Benchmark, Item, score_items
from tasks.measurements.perturbation import Snapshot, perturb
from tasks.placing import placed

POLICY = Path(__file__).parents[2] / "policies" / "default.yaml"
SPLIT = ("cpu", "lazy:0")
LAYERS = 4
HALVES = ("cpu", "cpu", "lazy:0", "lazy:0")
# As little of everything as a plan may ask.
PLAN = Plan(
    noise_scales=(0.005,), noise_draws=2, noise_items=4, line_points=(2.0,), line_items=4, ascent_steps=1,
    ascent_seeds=2, ascent_items=2, gradient_items=2, random_draws=2, rollout_items=2, rollout_tokens=5, loss_items=2,
    direction_steps=1, stop_when_decided=False, also=(Extra.SHARPNESS, Extra.ROBUSTNESS, Extra.INPUTS, Extra.MERGE, Extra.TAMPER), merge_draws=4, robust_strengths=(0.05,), robust_draws=2,
    robust_items=2,
    merge_items=2, tamper_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def lazy_backend() -> None:
    ts_backend.init()


@pytest.fixture
def two_devices(lazy_backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices of which each holds some layers of a tiny model, and of what measuring it takes, and neither holds all."""
    size = sum(p.numel() * p.element_size() for p in tiny_llama(layers=LAYERS).parameters())
    rooms = {"cpu": WORK_BYTES + COPIES * size * 0.8, "lazy:0": WORK_BYTES + COPIES * size * 0.9}
    monkeypatch.setattr(placing, "memory", rooms.__getitem__)
    # The one thing that the lazy backend lacks.
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)


def devices(model: torch.nn.Module) -> set[str]:
    return {str(parameter.device) for parameter in model.parameters()}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A base that answers every item rightly, a candidate near it, and the suite."""
    base, candidate, suite = (tmp_path / name for name in ("base", "candidate", "suite"))
    model, tokenizer = tiny_llama(tied=False, layers=LAYERS), tiny_tokenizer()
    for folder in (base, candidate):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    weights = load_file(candidate / "model.safetensors")
    moved = {
        name: w + 0.01 * torch.randn(w.shape, generator=torch.Generator().manual_seed(1)) for name, w in weights.items()
    }
    save_file(moved, candidate / "model.safetensors", metadata={"format": "pt"})
    suite.mkdir()
    items = [Item(f"item {LETTERS[n]}", choices=("yes it is", "no never"), label=0) for n in range(12)]
    right = score_items(model, tokenizer, Benchmark("c", "choice", tuple(items), 0.1), range(12))
    rows = [
        {"prompt": i.prompt, "choices": i.choices, "label": 0 if r else 1} for i, r in zip(items, right, strict=True)
    ]
    (suite / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (suite / "suite.yaml").write_text(
        "name: s\ncapabilities:\n  - {name: c, scorer: choice, items: c.jsonl, margin: 0.5}\n"
    )
    return base, candidate, suite


def evidence_on(device: str, folders: tuple[Path, Path, Path], room: Path) -> Evidence:
    base, candidate, suite = folders
    policy = one_policy(POLICY, None).model_copy(update={"plan": PLAN})
    room.mkdir()
    return assess(base, candidate, policy=policy, suite=str(suite), device=device, threads=1, cache=room)[0]


@pytest.mark.usefixtures("two_devices")
def test_every_measurement_of_a_split_base_is_that_of_one_device(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    one, split = (evidence_on(device, folders, tmp_path / device) for device in ("cpu", ",".join(SPLIT)))

    assert (one.provenance["device"], split.provenance["device"]) == ("cpu", "cpu, lazy:0")
    assert len(one.measurements) > 20
    assert split.unmeasured == one.unmeasured
    for mine, other in zip(one.measurements, split.measurements, strict=True):
        assert (mine.name, mine.capability) == (other.name, other.capability)
        assert other.estimate.value == pytest.approx(mine.estimate.value, rel=1e-3, abs=1e-4), mine.name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.usefixtures("two_devices")
def test_noise_on_a_split_model_is_the_same_and_is_taken_back(tied: bool) -> None:
    whole, split, plain = (tiny_llama(tied=tied, layers=LAYERS) for _ in range(3))
    split = placed(split, SPLIT)
    assert [devices(layer) for layer in split.model.layers] == [{device} for device in HALVES]
    pristine = Snapshot.of(plain)
    assert perturb(split, pristine, 0.01, 7, 0).norm == pytest.approx(perturb(whole, pristine, 0.01, 7, 0).norm)
    ids = torch.arange(12).reshape(2, 6)
    assert split(input_ids=ids).logits.device == ids.device
    torch.testing.assert_close(split(input_ids=ids).logits, whole(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(split(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-3)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("order", [("lazy:0", "cpu"), ("cpu", "lazy:0")])
def test_a_model_that_one_device_holds_is_on_the_first_that_does(
    order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "memory", {"cpu": WORK_BYTES + 100.0, "lazy:0": 1e12}.__getitem__)
    assert devices(placed(tiny_llama(), order)) == {"lazy:0"}


def test_a_model_that_all_devices_together_do_not_hold_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "memory", lambda device: WORK_BYTES + 100.0)
    with pytest.raises(NotMeasurable, match="in whole layers, found 2 GB; use larger devices"):
        placed(tiny_llama(), SPLIT)
